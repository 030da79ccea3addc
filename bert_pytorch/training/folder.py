"""The output folder of a run: one writer at a time, and what `--overwrite` takes away."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.files import exclusive_lock, remove_partial_files
from bert_pytorch.tracking.session import METRICS_FILE, TENSORBOARD_FOLDER


def claim_folder(
    output_dir: Path, checkpoints: str, keep_checkpoints: int, held: contextlib.ExitStack
) -> CheckpointStore:
    """Make the output folder, take its lock for as long as `held` lasts, and clear away what a killed run left.

    Args:
        output_dir: the run's folder.
        checkpoints: name of the folder of checkpoints in it.
        keep_checkpoints: how many of the newest are kept.
        held: holds the lock.

    Raises:
        InputError: if another process is writing there.
    """
    held.enter_context(exclusive_lock(output_dir, "runs"))
    for folder in (output_dir, output_dir / checkpoints):
        remove_partial_files(folder)
    return CheckpointStore(output_dir / checkpoints, keep_checkpoints)


def remove_run(output_dir: Path, log_prefix: str, names: Iterable[str]) -> None:
    """Remove what a run wrote and nothing else: the folder may hold other things of its owner.

    Args:
        output_dir: the run's folder.
        log_prefix: of the session that begins; its console log, open already, is emptied instead.
        names: of files and folders that the run wrote beside its metrics.
    """
    for name in (*names, TENSORBOARD_FOLDER, METRICS_FILE):
        if (output_dir / name).is_dir():
            shutil.rmtree(output_dir / name)
        else:
            (output_dir / name).unlink(missing_ok=True)
    for record in output_dir.glob("*_run_config.json"):
        prefix = record.name.removesuffix("_run_config.json")
        for ending in ("_metrics.csv", "_run_config.json", *([".txt"] if prefix != log_prefix else [])):
            (output_dir / f"{prefix}{ending}").unlink(missing_ok=True)
    (output_dir / f"{log_prefix}.txt").write_text("")
