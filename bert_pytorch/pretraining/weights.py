"""Starting from given weights: `--init_checkpoint`."""

import logging
from pathlib import Path

from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.families import MODERNBERT_KEYS
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import Vocabulary

logger = logging.getLogger(__name__)

SAME_FUNCTION = ("num_attention_heads", "hidden_act", "layer_norm_eps", *MODERNBERT_KEYS)
"""Keys that change what weights of equal shapes compute."""

HEADS = ("cls.", "bert.pooler.")
"""Parts that an encoder may come without, and that a run may do without."""


def put_initial_weights(model: PretrainingModel, given: LoadedWeights, path: Path, vocabulary: Vocabulary) -> None:
    """Put given weights into `model`; heads that it lacks keep their initial values, which is told.

    Args:
        model: on the CPU, initialised.
        given: what `interop.sources.load_source` read.
        path: where from, for messages.
        vocabulary: of the corpus; the weights must have been trained with the same.

    Raises:
        ConfigError: if the weights are of another shape or vocabulary.
    """
    wanted = model.state_dict()
    problems = [
        f"its {key} is {getattr(given.config, key)!r}, the model's {getattr(model.config, key)!r}"
        for key in SAME_FUNCTION
        if getattr(given.config, key) != getattr(model.config, key)
    ]
    if given.vocabulary != vocabulary:
        problems.append(
            f"its vocabulary ({given.vocabulary.describe()}) is not the corpus's ({vocabulary.describe()}, perhaps "
            "others); encode the corpus with its vocabulary: --vocab_file"
        )
    else:
        problems += [
            f"{name} has shape {tuple(given.state_dict[name].shape)}, the model wants {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given.state_dict and given.state_dict[name].shape != tensor.shape
        ]
        missing = [name for name in wanted if name not in given.state_dict]
        unexpected = [name for name in given.state_dict if name not in wanted]
        problems += [f"{name} is missing" for name in missing if not name.startswith(HEADS)]
        problems += [f"{name} has no place in the model" for name in unexpected if not name.startswith(HEADS)]
    if problems:
        raise ConfigError(f"--init_checkpoint {path}", problems)
    for name in missing:
        logger.warning("init_checkpoint: %s is not in %s and begins at random", name, path)
    for name in unexpected:
        logger.info("init_checkpoint: %s is not used by this model", name)
    model.load_state_dict({name: given.state_dict.get(name, tensor) for name, tensor in wanted.items()})
    logger.info("weights: %s", path)
