"""Configuration of what a run writes about itself."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from bert_pytorch.config.settings import Settings


class TrackingConfig(Settings):
    """Metrics files, console log and progress bar."""

    log_prefix: str = "logfile"
    """Start of the names of the console log, the CSV and the configuration written into the output folder."""
    log_interval: int = Field(1, gt=0)
    """Updates between two rows of metrics; the first and the last update of a session always have one."""
    disable_progress_bar: bool = False
    """Print plain lines on a terminal, too."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "log_freq": "--log_interval",
        "logging_steps": "--log_interval",
        "json_summary": "nothing: metrics.jsonl in --output_dir is always written",
        "tensorboard_logdir": "nothing: tensorboard/ in --output_dir is always written",
        "enable_tensorboard_logging": "nothing: tensorboard/ in --output_dir is always written",
        "profile": "nothing: python -m benchmarks.training_profile profiles updates",
        "profile_steps": "nothing: python -m benchmarks.training_profile profiles updates",
    }

    def combination_problems(self) -> Iterator[str]:
        """A prefix is the start of a file name, not a path."""
        yield from super().combination_problems()
        if not self.log_prefix or "/" in self.log_prefix or "\0" in self.log_prefix:
            yield (
                f"log_prefix: found {self.log_prefix!r}, wanted the start of a file name without '/': "
                "its files go into --output_dir."
            )

    def logs(self, step: int, *, first_step: int, last_step: int) -> bool:
        """Whether an update has a row; the same answer on every rank.

        Args:
            step: updates done after it, phases added up.
            first_step: updates done when the session began.
            last_step: updates done when the session will end.
        """
        return step % self.log_interval == 0 or step in (first_step + 1, last_step)
