"""Starting from given weights: `--init_checkpoint`, `--init_from_teacher_layers`."""

import logging
import re
from pathlib import Path

from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.matching import LoadedWeights, is_head
from bert_pytorch.models.families import MODERNBERT_KEYS
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.pretraining.growth import grown
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import extends

logger = logging.getLogger(__name__)

SAME_FUNCTION = ("num_attention_heads", "hidden_act", "layer_norm_eps", *MODERNBERT_KEYS)
"""Keys that change what weights of equal shapes compute."""


LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")


def put_teacher_layers(model: PretrainingModel, given: LoadedWeights, path: Path, vocabulary: Vocabulary) -> None:
    """Put a teacher's embeddings, heads and `chosen_layers` into `model`; the arguments are `put_initial_weights`'.

    What the student has no place for, such as segment embeddings, is left out (Sanh et al. 2019, section 3).

    Raises:
        ConfigError: if the teacher is of another shape or vocabulary, or has fewer layers.
    """
    ours, theirs = model.config.num_hidden_layers, given.config.num_hidden_layers
    if ours > theirs:
        problem = f"it has {theirs} layers, the model {ours}; --init_from_teacher_layers wants at least as many"
        raise ConfigError(f"--teacher {path}", [problem])
    layers = chosen_layers(theirs, ours)

    def source(name: str) -> str:
        return LAYER.sub(lambda match: f"bert.encoder.layer.{layers[int(match[1])]}.", name)

    taken = {name: given.state_dict[source(name)] for name in model.state_dict() if source(name) in given.state_dict}
    put_initial_weights(model, given._replace(state_dict=taken, unexpected=()), path, vocabulary, option="--teacher")
    logger.info("layers of the teacher that the model begins from: %s", ", ".join(str(layer + 1) for layer in layers))


def chosen_layers(of: int, wanted: int) -> list[int]:
    """Choose layers (from 0) evenly from the first to the last, 0 2 4 7 9 11 for 6 of 12."""
    return [round(index * (of - 1) / max(wanted - 1, 1)) for index in range(wanted)]


def put_initial_weights(
    model: PretrainingModel,
    given: LoadedWeights,
    path: Path,
    vocabulary: Vocabulary,
    *,
    option: str = "--init_checkpoint",
) -> None:
    """Put given weights into `model`; heads that it lacks keep their initial values, which is told.

    Args:
        model: on the CPU, initialised.
        given: what `interop.sources.load_source` read.
        path: where from, for messages.
        vocabulary: of the corpus: that of the weights, or one that extends it (`pretraining.growth`).
        option: that named the path, for messages.

    Raises:
        ConfigError: if the weights are of another shape or vocabulary.
    """
    if given.vocabulary != vocabulary and extends(vocabulary, given.vocabulary):
        given = grown(given, vocabulary)
    wanted = model.state_dict()
    problems = [
        f"its {key} is {getattr(given.config, key)!r}, the model's {getattr(model.config, key)!r}"
        for key in SAME_FUNCTION
        if getattr(given.config, key) != getattr(model.config, key)
    ]
    if given.vocabulary != vocabulary:
        problems.append(
            f"its vocabulary ({given.vocabulary.describe()}) is not the corpus's ({vocabulary.describe()}, perhaps "
            "others), nor the beginning of it; encode the corpus with its vocabulary (--vocab_file), or with one that "
            "extends it: python -m bert_pytorch.corpus vocab --extend"
        )
    else:
        problems += [
            f"{name} has shape {tuple(given.state_dict[name].shape)}, the model wants {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given.state_dict and given.state_dict[name].shape != tensor.shape
        ]
        missing = [name for name in wanted if name not in given.state_dict]
        unexpected = [name for name in given.state_dict if name not in wanted]
        problems += [f"{name} is missing" for name in missing if not is_head(name)]
        problems += [
            f"{name} has no place in the model"
            for name in (*unexpected, *(name for name in given.unexpected if name.startswith("bert.")))
            if not is_head(name)
        ]
    if problems:
        raise ConfigError(f"{option} {path}", problems)
    for name in missing:
        logger.warning("%s: %s is not in %s and begins at random", option, name, path)
    for name in given.unexpected:
        logger.warning("%s: %s has no place in this model and is left out", option, name)
    for name in unexpected:
        logger.info("%s: %s is not used by this model", option, name)
    model.load_state_dict({name: given.state_dict.get(name, tensor) for name, tensor in wanted.items()})
    logger.info("weights: %s", path)
