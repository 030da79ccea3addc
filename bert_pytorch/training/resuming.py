"""A second start in a run's folder: what it may not change, and telling what it does change."""

import logging
from pathlib import Path
from typing import Any

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.errors import ConfigError
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.families import MODERNBERT_KEYS
from bert_pytorch.records import Vocabulary

logger = logging.getLogger(__name__)

NOT_COMPARED = {"output_dir", "config_file", "run_name", "overwrite", "dry_run", "init_checkpoint", "steps"}
"""Keys whose change between sessions of a run is nothing to tell."""


SHAPE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "max_position_embeddings", "type_vocab_size", "next_sentence", *MODERNBERT_KEYS,
)  # fmt: skip
"""Keys of the model configuration that a checkpoint cannot change; dropout, for one, it can."""


def refuse_other_model(checkpoint: Checkpoint, model_config: ModelConfig, vocabulary: Vocabulary, path: Path) -> None:
    """Refuse to continue a checkpoint with another shape or vocabulary.

    Raises:
        ConfigError: naming each difference.
    """
    saved = ModelConfig.model_validate(checkpoint.model_config)
    problems = [
        f"{name}: {getattr(saved, name)!r} in {path.name}, {getattr(model_config, name)!r} now."
        for name in SHAPE
        if getattr(saved, name) != getattr(model_config, name)
    ]
    kept = checkpoint.tokenizer_vocabulary()
    if vocabulary != kept:
        found, wanted = vocabulary.describe(), kept.describe()
        problems.append(f"vocabulary: {wanted} in {path.name}, {found} (or other tokens) now.")
    if problems:
        advice = "Give the shape and vocabulary that the run began with, another --output_dir, or --overwrite."
        raise ConfigError(f"{path} cannot be carried on", [*problems, advice])


def report_changes(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Log and return what differs from the session before, each as `name: old → new`; the new values apply."""
    changes = [
        f"{name}: {saved[name]} → {value}"
        for name, value in current.items()
        if name in saved and name not in NOT_COMPARED and saved[name] != value
    ]
    for change in changes:
        logger.info("changed since the last session: %s", change)
    return changes
