"""Hugging Face directories, in and out, without importing `transformers`.

Out: `config.json`, `model.safetensors` and the tokenizer's files (`tokenization.tokenizer`), as `transformers` opens
them with no missing and no unexpected names.  In: such a directory, or an older one with `pytorch_model.bin`, with or
without heads; names are brought to ours (`interop.names`), which do not list the tied decoder.

`transformers` has no MosaicBERT, and would open its authors' files (`model_type` bert) as a BERT with random layers.
It is written under its authors' weight names, but as `model_type` mosaic_bert, which `transformers` refuses.
"""

import json
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from bert_pytorch.config.files import read_mapping
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_files, atomic_write_json
from bert_pytorch.interop.matching import LoadedWeights, matched
from bert_pytorch.interop.names import from_family, to_family
from bert_pytorch.models.config import ModelConfig, load_model_config, to_huggingface
from bert_pytorch.models.encoder import padded_vocab_size
from bert_pytorch.models.families import FAMILIES, ModelType, position_offset
from bert_pytorch.models.tasks import Task
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary
from bert_pytorch.vocabulary import read_vocabulary

logger = logging.getLogger(__name__)

CONFIG, SAFETENSORS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
TOKENIZER_CONFIG = "tokenizer_config.json"

WORD_EMBEDDINGS, SEGMENTS = "bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
DECODER, DECODER_BIAS, BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.bias"

OLD_NAMES = (
    (r"^module\.", ""),  # saved from inside DistributedDataParallel
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # TensorFlow's names, in files of 2018 and 2019
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


def export_huggingface(
    folder: Path, state_dict: Mapping[str, Tensor], config: ModelConfig, vocabulary: Vocabulary
) -> None:
    """Write a directory that `transformers` opens; `config.json` appears in it last, when all the rest is whole.

    A model without segment embeddings gets one of zeros where `transformers` looks a segment up in any case.

    Args:
        folder: made where needed; an earlier export in it is replaced, other files stay.
        state_dict: of a `PretrainingModel`, with or without heads; padding rows of the vocabulary are left out.
        config: its shape.
        vocabulary: its tokens and casing.
    """
    tensors = their_tensors(state_dict, config, vocabulary)
    values = their_config(config, vocabulary)
    if not any(name.startswith("cls.") for name in state_dict):
        values["architectures"] = [FAMILIES[config.model_type].model.replace("ForMaskedLM", "Model")]
    write_folder(folder, tensors, values, config, vocabulary)


def write_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    config: ModelConfig,
    vocabulary: Vocabulary,
) -> None:
    """Write weights, `config.json` with `values`, and a tokenizer for sequences as long as the model allows."""
    with atomic_files(folder, sign=CONFIG) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        # Not save_file: what the operating system refuses (a full disk) would come as the library's own error.
        (temporary / SAFETENSORS).write_bytes(save(contiguous, metadata={"format": "pt"}))
        tokenizer_from_vocabulary(vocabulary).save(temporary)
        settings = json.loads((temporary / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        settings["model_max_length"] = config.max_position_embeddings
        atomic_write_json(temporary / TOKENIZER_CONFIG, settings)
        atomic_write_json(temporary / CONFIG, values)


def load_huggingface(folder: Path, *, allow_missing: bool = False) -> LoadedWeights:
    """Read a Hugging Face directory of any architecture that `models.build` knows, for pretraining and its heads.

    Whether there is a next-sentence head is told by the weights.

    Raises:
        InputError: if files are missing or damaged, or weights of the encoder are missing (unless allowed) or of a
            wrong shape.
        ConfigError: if `config.json` describes another architecture.
    """
    config, vocabulary, found = read_folder(folder)
    return fitted_weights(found, config, vocabulary, str(folder), allow_missing=allow_missing)


def fitted_weights(
    found: Mapping[str, Tensor],
    config: ModelConfig,
    vocabulary: Vocabulary,
    where: str,
    *,
    allow_missing: bool = False,
) -> LoadedWeights:
    """Fit weights that `our_tensors` returned to the model with pretraining's heads.

    Args:
        found: with or without heads.
        config: their shape; size and casing of the vocabulary and whether there is a next-sentence head are set anew.
        vocabulary: their tokens and casing.
        where: they come from, for messages.
        allow_missing: whether parts of the encoder may be missing.

    Raises:
        InputError: if weights of the encoder are missing or of a wrong shape.
    """
    config = config.model_copy(
        update={
            "next_sentence": config.model_type == "bert" and any(name.startswith("bert.pooler.") for name in found),
            "vocab_size": len(vocabulary.tokens),
            "lowercase": vocabulary.lowercase,
        }
    )
    return matched(found, config, vocabulary, where, allow_missing=allow_missing)


def read_folder(folder: Path, task: Task | None = None) -> tuple[ModelConfig, Vocabulary, dict[str, Tensor]]:
    """Read configuration, vocabulary and weights; these under our names, with our numbers of rows.

    Raises:
        InputError: if files are missing or damaged.
        ConfigError: if `config.json` describes another architecture.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: found no {CONFIG} in it; wanted a Hugging Face directory.")
    config = load_model_config(folder)
    vocabulary = read_vocabulary(folder)
    found = our_tensors(_read_tensors(folder), config, vocabulary, str(folder), pad_id=_pad_id(folder), task=task)
    size = {"vocab_size": len(vocabulary.tokens), "lowercase": vocabulary.lowercase}
    return config.model_copy(update=size), vocabulary, found


def our_tensors(
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    vocabulary: Vocabulary,
    where: str,
    *,
    pad_id: int = 0,
    task: Task | None = None,
) -> dict[str, Tensor]:
    """Bring weights under Hugging Face's names to our names, rows and float32.

    Rows of the word embedding past the vocabulary stand for no token and are left out.

    Args:
        tensors: with or without heads.
        config: says of which family.
        vocabulary: their tokens.
        where: they come from, for messages.
        pad_id: as their configuration says, from which RoBERTa counts positions.
        task: whose head is among them.

    Raises:
        InputError: if there are no word embeddings, fewer of them than tokens, or a decoder of its own.
    """
    found = _our_names(tensors, config.model_type, task, where)
    if WORD_EMBEDDINGS not in found:
        raise InputError(f"{where}: its weights have no {WORD_EMBEDDINGS}; wanted those of a {config.model_type}.")
    for name in (WORD_EMBEDDINGS, POSITIONS, BIAS):
        if name in found and not found[name].dim():
            raise InputError(f"{where}: {name} is a single number, wanted a row for each entry.")
    if POSITIONS in found:
        found[POSITIONS] = found[POSITIONS][position_offset(config.model_type, pad_id) :]
    _fit_rows(found, len(vocabulary.tokens), where)
    return found


def their_tensors(
    state_dict: Mapping[str, Tensor], config: ModelConfig, vocabulary: Vocabulary, task: Task | None = None
) -> dict[str, Tensor]:
    """Bring a state dict (or gradients under the same names) to the names and rows of a Hugging Face file."""
    tensors = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    tensors[WORD_EMBEDDINGS] = tensors[WORD_EMBEDDINGS][: len(vocabulary.tokens)]
    if config.model_type in ("bert", "roberta", "mosaic_bert"):
        tensors.setdefault(SEGMENTS, torch.zeros(1, config.hidden_size))
    if POSITIONS in tensors:
        offset = position_offset(config.model_type, vocabulary.pad_id)
        unused = tensors[POSITIONS].new_zeros(offset, config.hidden_size)
        tensors[POSITIONS] = torch.cat([unused, tensors[POSITIONS]])
    return to_family(tensors, config.model_type, task)


def their_config(config: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of `config.json`, the ids of special tokens included."""
    values = to_huggingface(config, len(vocabulary.tokens), vocabulary.pad_id)
    if config.model_type != "bert":
        values |= {"bos_token_id": vocabulary.cls_id, "eos_token_id": vocabulary.sep_id}
    if config.model_type == "modernbert":
        values |= {"cls_token_id": vocabulary.cls_id, "sep_token_id": vocabulary.sep_id}
    return values


def _pad_id(folder: Path) -> int:
    value = read_mapping(folder / CONFIG).get("pad_token_id", 1)
    return value if isinstance(value, int) else 1


def _our_names(
    tensors: Mapping[str, Tensor], model_type: ModelType, task: Task | None, where: str
) -> dict[str, Tensor]:
    """Rename to our names, convert to float32 and check that the decoder is the word embedding."""
    modern: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in OLD_NAMES:
            name = re.sub(pattern, replacement, name)
        modern[name] = tensor.float()
    renamed = {name: tensor for name, tensor in from_family(modern, model_type, task).items() if name not in BUFFERS}
    for copy, original in ((DECODER, WORD_EMBEDDINGS), (DECODER_BIAS, BIAS)):
        duplicate = renamed.pop(copy, None)
        if duplicate is not None and not torch.equal(renamed.setdefault(original, duplicate), duplicate):
            raise InputError(
                f"{where}: {copy} differs from {original}; in the models of this project the decoder is the embedding."
            )
    return renamed


def _fit_rows(tensors: dict[str, Tensor], vocab_size: int, where: str) -> None:
    """Give the word embedding our number of rows, and the decoder's bias one entry for each token."""
    words = tensors[WORD_EMBEDDINGS]
    if len(words) < vocab_size:
        raise InputError(f"{where}: the vocabulary has {vocab_size} tokens, the word embedding {len(words)} rows.")
    if len(words) > vocab_size:
        logger.warning("%s: rows %d to %d stand for no token: left out.", where, vocab_size, len(words) - 1)
    padded = words.new_zeros(padded_vocab_size(vocab_size), *words.shape[1:])
    padded[:vocab_size] = words[:vocab_size]
    tensors[WORD_EMBEDDINGS] = padded
    if BIAS in tensors:
        tensors[BIAS] = tensors[BIAS][:vocab_size]


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / SAFETENSORS).is_file():
        try:
            return load_file(folder / SAFETENSORS)
        except safetensors.SafetensorError as error:
            raise InputError(f"{folder / SAFETENSORS}: it is cut off or damaged ({error}). Fetch it again.") from None
    path = folder / PICKLED
    if not path.is_file():
        raise InputError(f"{folder}: found neither {SAFETENSORS} nor {PICKLED} in it.")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise InputError(f"{path}: it cannot be read as plain weights ({reason}).") from None
    if not isinstance(values, dict) or not all(isinstance(tensor, Tensor) for tensor in values.values()):
        raise InputError(f"{path}: it holds something other than named tensors; wanted a state dict.")
    return values
