"""Reading one checkpoint file: verified against its checksums, and never executing what is in it."""

import errno
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from bert_pytorch.checkpoints.format import Weights, check_version, weights_from_dict
from bert_pytorch.errors import InputError, explain_os_error

PICKLE_START = b"\x80"
"""First byte of a pickle, as torch before 1.6 wrote."""


class DamagedCheckpointError(InputError):
    """The file was cut off or its bytes changed: an older checkpoint may take its place."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; reads the file twice, the first time to compare its checksums.

    Returns:
        The saved dict; `Checkpoint.from_dict` or `weights_from_dict` check its entries.

    Raises:
        DamagedCheckpointError: if its bytes are not those that were written.
        InputError: if it is missing, cannot be read, is of another format, or holds more than plain data.
        OSError, MemoryError: if reading failed for a reason that is not in the file.
    """
    verify_checksums(path)
    values = _load_plain_data(path, mmap=False)
    check_version(values, str(path))
    assert isinstance(values, dict)  # check_version saw to it
    return values


def load_weights(path: Path) -> Weights:
    """Read what a model can be built and used from: weights, shape, vocabulary and casing.

    Raises:
        InputError: as `load_checkpoint`, or if one of these entries is missing.
    """
    return weights_from_dict(load_checkpoint(path), str(path))


def load_torch_file(path: Path) -> Any:
    """Read what any program wrote with `torch.save`; tensors of a zip archive stay on disk until they are touched.

    Files of torch before 1.6 (no zip archive) have no checksums to compare.

    Raises:
        DamagedCheckpointError: if its bytes are not those that were written.
        InputError: if it is missing, cannot be read, or holds more than plain data.
        OSError, MemoryError: if reading failed for a reason that is not in the file.
    """
    is_zip = _first_bytes(path)[:1] != PICKLE_START
    if is_zip:
        verify_checksums(path)
    return _load_plain_data(path, mmap=is_zip)


def is_phase_end(path: Path) -> bool:
    """Whether a checkpoint is the last of its phase; reads no tensor data.

    Raises:
        InputError: if the file cannot be read.
    """
    values = _load_plain_data(path, mmap=True)
    return isinstance(values, dict) and bool(values.get("phase_end", False))


def verify_checksums(path: Path) -> None:
    """Compare every part of the file with its CRC-32; `torch.load` does not, and would return flipped bits as weights.

    Raises:
        DamagedCheckpointError: if the file is no zip archive or a part of it differs.
        InputError: if it is missing or cannot be opened.
    """
    start = _first_bytes(path)
    if not start:
        raise DamagedCheckpointError(f"{path}: the file is empty. {_ADVICE}")
    if start != b"PK\x03\x04":
        raise DamagedCheckpointError(
            f"{path}: it is not a checkpoint (no zip archive, as torch.save writes). {_ADVICE}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # damage anywhere in the archive's tables surfaces as any of a dozen types
        _raise_unless_damage(path, error)
        raise DamagedCheckpointError(f"{path}: it is cut off or damaged ({error}). {_ADVICE}") from None
    if damaged is not None:
        raise DamagedCheckpointError(f"{path}: its part {damaged} is damaged (wrong checksum). {_ADVICE}")


def _first_bytes(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"{path}: there is no such checkpoint. Check the spelling of the path.")
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; name the checkpoint file inside it (ckpt_N.pt).")
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InputError(explain_os_error(error)) from None


def _load_plain_data(path: Path, *, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"code or objects ({refused[1]})" if refused else "more than plain data"
        raise InputError(
            f"{path}: it holds {what}, wanted only tensors and plain values; it was not loaded, because "
            f"loading could run programs hidden in it. {_STRIPPED}"
        ) from None
    except Exception as error:  # torch reports damage as RuntimeError, KeyError, EOFError, ValueError …
        _raise_unless_damage(path, error)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedCheckpointError(f"{path}: it cannot be read as a checkpoint ({reason}). {_ADVICE}") from None


def _raise_unless_damage(path: Path, error: BaseException) -> None:
    """Raise what this machine lacked at this time: memory, or a disk that answers; the file may be good."""
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, MemoryError):
            raise reason
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EINVAL):  # EINVAL: a damaged table's offset
            raise OSError(reason.errno, reason.strerror, str(path)) from error
        reason = reason.__context__


_ADVICE = "Use another checkpoint, or write it anew."
_STRIPPED = (
    "Use a file that run_pretraining.py wrote; if you trust a file of another program, keep its weights alone, where "
    "that program is installed: torch.save({'model': torch.load(FILE, weights_only=False)['model']}, NEW_FILE)"
)
