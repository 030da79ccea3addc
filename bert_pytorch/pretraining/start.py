"""How a session begins: anew, from given weights, with the next phase, or where an earlier session ended.

Rank 0 looks into the output folder and decides; the others are told.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.checkpoints.reading import load_torch_file
from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.errors import InputError
from bert_pytorch.interop.sources import CHECKPOINTS
from bert_pytorch.pretraining.config import PretrainingConfig

logger = logging.getLogger(__name__)

StartKind = Literal["new", "next_phase", "resume", "finished"]


class Start(NamedTuple):
    """Where a session begins."""

    kind: StartKind
    checkpoint: Path | None
    """The checkpoint that is carried on; None for a new run."""
    step: int
    """Updates done, phases added up."""
    samples: int
    """Samples of this phase consumed."""
    phase: int
    """1 for the first phase of a run."""


def decide_start(config: PretrainingConfig, store: CheckpointStore) -> Start:
    """Decide from the newest good checkpoint in the output folder.

    Raises:
        InputError: if the folder holds another phase than asked for, or the next phase has nothing to carry on.
    """
    previous = config.previous_phase_end_step
    if config.overwrite:
        return Start("new", None, 0, 0, 1)
    loaded = store.load_newest()
    if loaded is None:
        return _start_without_checkpoint(config, store)
    newest, step = loaded.checkpoint, loaded.step
    store.set_aside_damaged(loaded)
    phase_start, phase, samples = newest.phase_start, newest.phase, newest.data_position.samples
    if phase_start == previous:
        kind: StartKind = "finished" if step >= previous + config.max_steps else "resume"
        return Start(kind, loaded.path, step, samples, phase)
    if step == previous:
        return Start("next_phase", loaded.path, step, 0, phase + 1)
    if phase_start >= previous + config.max_steps:
        logger.info("this phase ended at update %d; the folder is in the phase after it", phase_start)
        return Start("finished", loaded.path, step, samples, phase)
    raise InputError(
        f"{store.directory}: its newest checkpoint has {step} updates, in a phase that began after {phase_start}; "
        f"--previous_phase_end_step says this phase begins after {previous}. "
        + (
            "Finish the phase before first, with its own configuration."
            if step < previous
            else "Give the phase's own --previous_phase_end_step and --max_steps, or choose another --output_dir."
        )
    )


def _start_without_checkpoint(config: PretrainingConfig, store: CheckpointStore) -> Start:
    previous = config.previous_phase_end_step
    if previous == 0:
        return Start("new", None, 0, 0, 1)
    if config.init_checkpoint is None:
        raise InputError(
            f"{store.directory}: no checkpoint found, wanted ckpt_{previous}.pt, where the phase before ended. Run "
            "that phase in the same --output_dir first, or give its checkpoint as --init_checkpoint."
        )
    given = config.init_checkpoint
    carried = CheckpointStore(given / CHECKPOINTS, keep_last=1).path_of(previous) if given.is_dir() else given
    if carried.is_file() and carried.suffix == ".pt":
        checkpoint = _whole_checkpoint(carried)
        if checkpoint is not None and checkpoint.step == previous:
            return Start("next_phase", carried, previous, 0, checkpoint.phase + 1)
    logger.warning(
        "%s is not the checkpoint of update %d: its weights are taken, moments start at zero", given, previous
    )
    return Start("new", None, previous, 0, 2)


def _whole_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint of a run; None where the file holds weights alone, or is another program's."""
    values = load_torch_file(path)
    if not isinstance(values, Mapping) or not {"format_version", "step"} <= values.keys():
        return None
    return Checkpoint.from_dict(values, str(path))
