"""Where a model can come from, recognised by content.

Our checkpoints and run folders, Hugging Face directories, checkpoints of NVIDIA's and the fork's.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from bert_pytorch.checkpoints.format import NotOursError, check_version
from bert_pytorch.checkpoints.reading import load_torch_file
from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.errors import InputError
from bert_pytorch.interop.huggingface import CONFIG, PICKLED, SAFETENSORS, load_huggingface
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.interop.nvidia import Hints, is_nvidia, load_nvidia
from bert_pytorch.interop.own import own_weights
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.build import build_model
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import Vocabulary

CHECKPOINTS, EXPORTED = "pretrain_ckpts", "model"


class LoadedModel(NamedTuple):
    """A model ready to use (in evaluation mode) and its vocabulary."""

    model: PretrainingModel
    vocabulary: Vocabulary
    missing: tuple[str, ...]
    """Weights of heads that the source does not have; they stand at their initial values."""


def load_source(source: Path, hints: Hints = Hints()) -> LoadedWeights:  # noqa: B008 immutable
    """Read the weights of a pretrained model.

    Args:
        source: `ckpt_N.pt`; a run's output folder, of which the newest good checkpoint is taken, or its `model/` where
            there is none; a folder of `ckpt_N.pt`; a Hugging Face directory, or the weights in it; a checkpoint of
            NVIDIA's or the fork's.
        hints: shape and vocabulary of the last, which does not hold them; and whether anything may be missing.

    Raises:
        InputError: if it is none of these, or damaged.
        ConfigError: if its configuration describes another architecture, or a hint is missing.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such checkpoint. Check the spelling of the path.")
    if source.is_file():
        return _from_file(source, hints)
    if (source / CONFIG).is_file():
        return load_huggingface(source, allow_missing=hints.allow_missing)
    for folder in (source / CHECKPOINTS, source):
        store = CheckpointStore(folder, keep_last=1)
        try:
            newest = store.load_newest()
        except NotOursError:
            return _from_file(store.path_of(store.steps()[-1]), hints)
        if newest is not None:
            return own_weights(newest.state, newest.path, allow_missing=hints.allow_missing)
    if (source / EXPORTED / CONFIG).is_file():
        return load_huggingface(source / EXPORTED, allow_missing=hints.allow_missing)
    raise InputError(
        f"{source}: found no model in this folder; wanted {CHECKPOINTS}/ckpt_N.pt or {EXPORTED}/ (a run's output "
        f"folder), or {CONFIG} (a Hugging Face directory)."
    )


def load_model(source: Path, attention: AttentionName = "auto", hints: Hints = Hints()) -> LoadedModel:  # noqa: B008
    """Build the model of a source; what `load_source` says about it holds here too."""
    return built(load_source(source, hints), attention)


def built(weights: LoadedWeights, attention: AttentionName = "auto") -> LoadedModel:
    """Build the model of these weights; what they lack stands at its initial values."""
    vocab_size = len(weights.vocabulary.tokens)
    if weights.missing:
        model = build_model(weights.config, vocab_size, attention)
    else:
        with torch.device("meta"):  # nothing is drawn that the loaded weights would overwrite
            model = build_model(weights.config, vocab_size, attention)
    model.load_state_dict(weights.state_dict, strict=not weights.missing, assign=not weights.missing)
    return LoadedModel(model.eval(), weights.vocabulary, weights.missing)


def _from_file(path: Path, hints: Hints) -> LoadedWeights:
    if path.name in (SAFETENSORS, PICKLED) and (path.parent / CONFIG).is_file():
        return load_huggingface(path.parent, allow_missing=hints.allow_missing)
    values = load_torch_file(path)
    if is_nvidia(values):
        return load_nvidia(values, path, hints)
    check_version(values, str(path))
    return own_weights(values, path, allow_missing=hints.allow_missing)
