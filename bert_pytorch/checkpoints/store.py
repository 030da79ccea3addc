"""The folder of a run's checkpoints: atomic writing, rotation across restarts, and the newest good file.

One process writes here at a time; the run holds the output folder's lock.
"""

import contextlib
import itertools
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.checkpoints.reading import DamagedCheckpointError, is_phase_end, load_checkpoint
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"ckpt_(0|[1-9][0-9]*)\.pt")


class Loaded(NamedTuple):
    """The newest checkpoint that could be read."""

    step: int
    """Updates done, from the file's name."""
    path: Path
    """The file."""
    state: dict[str, Any]
    """What was saved, on the CPU."""
    rejected: list[str]
    """A message for each newer file that is damaged, newest first."""
    damaged: list[Path]
    """Those files."""

    @property
    def checkpoint(self) -> Checkpoint:
        """All entries that continuing needs, checked; whoever needs the weights alone asks less of `state`.

        Raises:
            InputError: naming every entry that is missing or of a wrong type.
        """
        return Checkpoint.from_dict(self.state, str(self.path))


@contextlib.contextmanager
def _naming_the_os_error(path: Path) -> Iterator[None]:
    """Raise what the operating system refused: torch buries a full disk under `RuntimeError: unexpected pos`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason: BaseException | None = error
        while reason is not None:
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror, str(path)) from error
            reason = reason.__context__
        raise


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write one file with `torch.save`, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    with _naming_the_os_error(path), atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


class CheckpointStore:
    """Checkpoints `ckpt_{step}.pt` of one folder; other files in it are never touched.

    Args:
        directory: the folder; made when first written to.
        keep_last: how many of the newest are kept, at least 1; ends of phases are kept besides.
    """

    def __init__(self, directory: Path, keep_last: int) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, found {keep_last}.")
        self.directory = directory
        self.keep_last = keep_last

    def path_of(self, step: int) -> Path:
        """Return the file name of the checkpoint after `step` updates."""
        return self.directory / f"ckpt_{step}.pt"

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint here, ascending."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, state: dict[str, Any], also_keep: Collection[int] = ()) -> Path:
        """Write `state` (from `Checkpoint.to_dict`) atomically, then remove what rotation no longer keeps.

        Args:
            step: updates done.
            state: what is written.
            also_keep: steps whose checkpoints stay besides the newest.

        Raises:
            OSError: if it cannot be written; the files that were there are all still there.
        """
        path = self.path_of(step)
        write_checkpoint(path, state)
        self._rotate(step, also_keep)
        return path

    def load_newest(self) -> Loaded | None:
        """Read the newest good checkpoint; damaged newer ones are reported as warnings and in the result.

        Returns:
            None if there is no checkpoint at all.

        Raises:
            InputError: if there are some and all are damaged, or the newest undamaged one is of another format version,
                not plain data, or not ours to read: falling back would then throw away good work.
            OSError, MemoryError: likewise, if the newest could not be read for a reason that is not in the file.
        """
        rejected: list[str] = []
        damaged: list[Path] = []
        for step in reversed(self.steps()):
            path = self.path_of(step)
            try:
                state = load_checkpoint(path)
            except DamagedCheckpointError as error:
                logger.warning("%s", error)
                rejected.append(str(error))
                damaged.append(path)
                continue
            if rejected:
                logger.warning("%s: continuing from this older checkpoint.", path)
            return Loaded(step, path, state, rejected, damaged)
        if not rejected:
            return None
        problems = "".join(f"\n  - {problem}" for problem in rejected)
        raise InputError(
            f"{self.directory}: none of its {len(rejected)} checkpoints can be read:{problems}\n"
            "Start anew with --overwrite, or remove these files."
        )

    def set_aside_damaged(self, loaded: Loaded) -> None:
        """Rename the damaged files that `load_newest` passed over: nothing reads or removes a `ckpt_N.pt.damaged`.

        Call it under the folder's lock.
        """
        for path in loaded.damaged:
            self._set_aside(path)

    def _set_aside(self, path: Path) -> None:
        names = itertools.chain([f"{path.name}.damaged"], (f"{path.name}.{n}.damaged" for n in itertools.count(2)))
        aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            logger.warning("%s: damaged, kept as %s.", path, aside.name)

    def _rotate(self, written: int, also_keep: Collection[int]) -> None:
        # Files past the one just written do not count: else a damaged leftover would cost a good one its place.
        for step in [step for step in self.steps() if step <= written][: -self.keep_last]:
            if step in also_keep:
                continue
            path = self.path_of(step)
            try:
                if not is_phase_end(path):
                    path.unlink(missing_ok=True)
            except DamagedCheckpointError as error:  # it may be the end of a phase
                logger.warning("%s", error)
                self._set_aside(path)
            except (InputError, OSError, MemoryError) as error:
                logger.warning("%s: it is kept beyond --keep_checkpoints, since it cannot be read: %s", path, error)
