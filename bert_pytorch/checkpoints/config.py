"""Configuration of how often checkpoints are written and how many are kept."""

from typing import ClassVar

from pydantic import Field

from bert_pytorch.config.settings import Settings


class CheckpointConfig(Settings):
    """Writing and keeping of checkpoints."""

    num_steps_per_checkpoint: int = Field(200, gt=0)
    """Updates between two checkpoints; one is also written when a phase ends and when a run is stopped."""
    skip_checkpoint: bool = False
    """Write no checkpoints: for measurements, since such a run cannot be continued."""
    keep_checkpoints: int = Field(3, gt=0)
    """How many of the newest checkpoints are kept; those at the end of a phase are kept besides."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "save_steps": "--num_steps_per_checkpoint",
        "save_total_limit": "--keep_checkpoints",
    }
