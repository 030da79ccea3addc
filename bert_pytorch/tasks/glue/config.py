"""Configuration of a GLUE task."""

from collections.abc import Iterator
from pathlib import Path

from bert_pytorch.config.settings import Settings
from bert_pytorch.tasks.glue.layouts import LAYOUTS


class GlueConfig(Settings):
    """Which tasks, and where their files are."""

    task_name: tuple[str, ...] = ()
    """cola, sst-2, mrpc, sts-b, qqp, mnli, qnli, rte or wnli; several, or all.  Required."""
    data_dir: Path | None = None
    """GLUE's folder, with one folder a task (CoLA, SST-2 …), or the folder of the one task.  Required."""
    diagnostic_file: Path | None = None
    """GLUE's diagnostic set, which an MNLI model predicts with --do_predict; by default diagnostic/diagnostic.tsv
    beside MNLI's folder, where it is."""

    def combination_problems(self) -> Iterator[str]:
        """Say which names are unknown."""
        yield from super().combination_problems()
        known = ", ".join(LAYOUTS)
        if not self.task_name:
            yield f"--task_name is missing: name tasks among {known}, or all."
        for name in self.task_name:
            if name.lower() != "all" and _plain(name) not in LAYOUTS:
                yield f"--task_name: found {name}, wanted {known}, or all."
        if self.data_dir is None:
            yield "--data_dir is missing: name the folder of GLUE's files."

    def tasks(self) -> tuple[str, ...]:
        """Return the names asked for, in GLUE's order."""
        asked = {_plain(name) for name in self.task_name}
        return tuple(name for name in LAYOUTS if name in asked or "all" in asked)


def _plain(name: str) -> str:
    lowered = name.lower()
    return {"sst2": "sst-2", "stsb": "sts-b"}.get(lowered, lowered)
