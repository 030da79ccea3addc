"""Checkpoints of NVIDIA's DeepLearningExamples and of gpauloski/BERT-PyTorch, in and out.

Such a file is a dict whose `model` has the names that Hugging Face's BERT had in 2019, with `dense_act` where a linear
layer and its activation are one module, and word embeddings padded to a multiple of 8 rows (30522 to 30528).  It holds
neither shape nor vocabulary: `bert_config.json` and `vocab.txt` beside it do, or files that are named.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.config.files import read_mapping
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.files import atomic_files, atomic_write_json, atomic_write_text
from bert_pytorch.interop.huggingface import BIAS, DECODER, WORD_EMBEDDINGS, fitted_weights, our_tensors
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.config import SHIPPED_CONFIGS, ModelConfig, load_model_config, model_config_of
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import VOCABULARY_TEXT, read_vocabulary, vocabulary_text

logger = logging.getLogger(__name__)

MODEL_ENTRY = "model"
CONFIG_FILE, CHECKPOINT_FILE = "bert_config.json", "ckpt_0.pt"
FUSED = ("intermediate", "pooler", "transform")
"""Modules whose linear layer is called `dense_act`: it applies the activation as well."""


NOT_SHAPE = (
    *("vocab_file", "output_all_encoded_layers", "directionality", "pooler_fc_size", "pooler_num_attention_heads"),
    *("pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"),
)
"""Keys of their configurations, and of Google's, that say nothing about the weights."""
THEIR_KEYS = (
    *("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size", "initializer_range"),
    *("intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "type_vocab_size"),
    *("next_sentence", "lowercase"),
)
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


class Hints(NamedTuple):
    """What a person says about a source that does not say it itself."""

    model_config_file: str | Path | None = None
    """Shape: a file, or the name of a shipped one."""
    vocab_file: Path | None = None
    """Vocabulary: a file, or a folder with one."""
    lowercase: bool | None = None
    """Casing, where the vocabulary does not tell it."""
    allow_missing: bool = False
    """Whether parts of the encoder may be missing, in any kind of source."""


def is_nvidia(values: Any) -> bool:
    """Whether a loaded file is a checkpoint of theirs, or the state dict of one, and not ours."""
    return _named_tensors(values) is not None and "format_version" not in values


def load_nvidia(values: Any, path: Path, hints: Hints) -> LoadedWeights:
    """Read the model out of a loaded checkpoint; optimizer, sampler and the like stay behind.

    Args:
        values: content of the file, for which `is_nvidia` is true.
        path: of the file.
        hints: names shape and vocabulary, where `bert_config.json` and `vocab.txt` beside the file do not.

    Raises:
        ConfigError: if shape or vocabulary are not known.
        InputError: if weights of the encoder are missing or of another shape.
    """
    tensors = {_huggingface_name(name): tensor for name, tensor in (_named_tensors(values) or {}).items()}
    config_file = hints.model_config_file or _beside(path, CONFIG_FILE)
    vocab_file = hints.vocab_file or _beside(path, VOCABULARY_TEXT)
    problems = []
    if config_file is None:
        problems.append(f"the file does not hold the model's shape: name it, {_config_advice(tensors)}.")
    if vocab_file is None:
        problems.append(
            "the file does not hold the vocabulary: name the one it was trained with, --vocab_file vocab.txt."
        )
    if config_file is None or vocab_file is None:
        problems.append("python -m bert_pytorch.convert SRC DST.pt with these options makes a file that holds both.")
        raise ConfigError(str(path), problems)
    config = _shape(config_file, tensors)
    vocabulary = read_vocabulary(vocab_file, hints.lowercase, otherwise=config.lowercase is not False)
    found = our_tensors(tensors, config, vocabulary, str(path))
    return fitted_weights(found, config, vocabulary, str(path), allow_missing=hints.allow_missing)


def export_nvidia(folder: Path, state_dict: Mapping[str, Tensor], config: ModelConfig, vocabulary: Vocabulary) -> None:
    """Write `ckpt_0.pt`, `bert_config.json` and `vocab.txt`, as `--init_checkpoint` of both projects takes them.

    Args:
        folder: made where needed; other files in it stay.
        state_dict: of our model; heads that are not in it are not written.
        config: its shape.
        vocabulary: its tokens and casing; WordPiece.

    Raises:
        InputError: if theirs is no such model.
    """
    if config.model_type != "bert":
        raise InputError(f"{folder}: the model is a {config.model_type}; NVIDIA's layout is for BERT alone.")
    if vocabulary.merges is not None:
        raise InputError(f"{folder}: the model has a byte-level BPE vocabulary; NVIDIA's BERT reads WordPiece only.")
    tensors = {_nvidia_name(name): tensor.detach().cpu().clone() for name, tensor in state_dict.items()}
    words = tensors[WORD_EMBEDDINGS]
    if BIAS in tensors:
        tensors[BIAS] = F.pad(tensors[BIAS], (0, len(words) - len(tensors[BIAS])))
        tensors[DECODER] = words
    with atomic_files(folder, sign=CHECKPOINT_FILE) as temporary:
        torch.save({MODEL_ENTRY: tensors}, temporary / CHECKPOINT_FILE)
        atomic_write_text(temporary / VOCABULARY_TEXT, vocabulary_text(vocabulary))
        atomic_write_json(temporary / CONFIG_FILE, _their_config(config, len(vocabulary.tokens)))


def _named_tensors(values: Any) -> dict[str, Tensor] | None:
    if not isinstance(values, Mapping):
        return None
    inner = values.get(MODEL_ENTRY, values)
    is_state_dict = (
        isinstance(inner, Mapping)
        and inner
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in inner.items())
    )
    return dict(inner) if is_state_dict else None


def _huggingface_name(name: str) -> str:
    return re.sub(r"\bdense_act\b", "dense", name)


def _nvidia_name(name: str) -> str:
    return re.sub(rf"\b({'|'.join(FUSED)})\.dense\b", r"\1.dense_act", name)


def _beside(path: Path, name: str) -> Path | None:
    beside = path.parent / name
    if not beside.is_file():
        return None
    logger.info("%s: read with %s beside it", path.name, name)
    return beside


def _shape(file: str | Path, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Read the configuration; what a model without the next-sentence task leaves out, the weights tell."""
    path = Path(file)
    if path.is_file():
        values = {name: value for name, value in read_mapping(path).items() if name not in NOT_SHAPE}
        config = model_config_of(values, path)
    else:
        config = load_model_config(file)
    has_segments = any(name.endswith("token_type_embeddings.weight") for name in tensors)
    return config if has_segments else config.model_copy(update={"type_vocab_size": 0})


def _config_advice(tensors: Mapping[str, Tensor]) -> str:
    """Say how to name the shape: by the shipped configurations that have it, where there are any."""
    advice = "--model_config_file"
    words = next((tensor for name, tensor in tensors.items() if name.endswith("word_embeddings.weight")), None)
    if words is None or words.dim() != 2:
        return advice
    hidden, layers = words.shape[1], len({match[1] for name in tensors if (match := LAYER.search(name))})
    shipped = [(path.stem, load_model_config(path)) for path in sorted(SHIPPED_CONFIGS.glob("*.json"))]
    fitting = [name for name, shape in shipped if (shape.hidden_size, shape.num_hidden_layers) == (hidden, layers)]
    example = f" (of the shipped ones, {' or '.join(fitting)})" if fitting else ""
    return f"{advice}: it has {layers} layers of width {hidden}{example}"


def _their_config(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return `bert_config.json`; `next_sentence` and `lowercase` are the fork's keys, which NVIDIA's ignores."""
    kept = {name: getattr(config, name) for name in THEIR_KEYS}
    return {**kept, "vocab_size": vocab_size, "tokenizer": "wordpiece"}
