"""Our own checkpoint files, as weights: read without what resuming needs, and written so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bert_pytorch.checkpoints.format import FORMAT_VERSION, vocabulary_entries, weights_from_dict
from bert_pytorch.checkpoints.store import write_checkpoint
from bert_pytorch.config.settings import problems_of
from bert_pytorch.errors import InputError
from bert_pytorch.interop.matching import LoadedWeights, matched
from bert_pytorch.models.config import ModelConfig


def own_weights(state: Mapping[str, Any], path: Path, *, allow_missing: bool = False) -> LoadedWeights:
    """Take the weights out of a loaded checkpoint.

    Raises:
        InputError: naming entries of file `path` that are missing or wrong.
    """
    weights = weights_from_dict(state, str(path))
    try:
        config = ModelConfig.model_validate(weights.model_config)
    except ValidationError as error:
        raise InputError(f"{path}: its model_config is not one: {' '.join(problems_of(error, ModelConfig))}") from None
    return matched(weights.model, config, weights.tokenizer_vocabulary(), str(path), allow_missing=allow_missing)


def export_own(path: Path, weights: LoadedWeights) -> None:
    """Write a file from which everything but resuming a run is possible: `--init_checkpoint`, `predict`, `convert`."""
    write_checkpoint(
        path,
        {
            "model": {name: tensor.contiguous() for name, tensor in weights.state_dict.items()},
            "model_config": weights.config.model_dump(mode="json"),
            **vocabulary_entries(weights.vocabulary),
            "format_version": FORMAT_VERSION,
        },
    )
