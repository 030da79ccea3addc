"""Folders of `datasets.Dataset.save_to_disk` and `DatasetDict.save_to_disk`: which Arrow files they consist of."""

import json
from pathlib import Path
from typing import Any

from bert_pytorch.errors import InputError

_DATASET, _DICTIONARY = "state.json", "dataset_dict.json"
_MOST_BYTES = 64 << 20


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one dataset."""
    return (folder / _DATASET).is_file()


def is_dataset_dictionary(folder: Path) -> bool:
    """Whether a folder holds datasets by the names of their splits."""
    return (folder / _DICTIONARY).is_file()


def dataset_splits(folder: Path) -> list[str]:
    """Return the names of the datasets in a folder that is a dictionary of them.

    Raises:
        InputError: if its list is damaged, or names what does not lie in the folder.
    """
    names = _read(folder / _DICTIONARY).get("splits")
    if not isinstance(names, list) or not all(_is_plain(name) for name in names):
        raise InputError(f'{folder / _DICTIONARY}: its "splits" are not names of folders here. Save the dataset again.')
    return [str(name) for name in names]


def dataset_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a dataset, in order.

    Raises:
        InputError: if its list is damaged, names what does not lie in the folder, or a file is missing.
    """
    state = _read(folder / _DATASET)
    listed = state.get("_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed or ()]
    if not isinstance(listed, list) or not all(_is_plain(name) for name in names):
        raise InputError(
            f'{folder / _DATASET}: its "_data_files" are not names of files here. Save the dataset again: save_to_disk.'
        )
    if state.get("_indices_data_files"):
        raise InputError(
            f"{folder}: rows in the order of an index, as early versions of datasets saved them. Save it anew: "
            "datasets.load_from_disk(FOLDER).flatten_indices().save_to_disk(OTHER)"
        )
    files = [folder / str(name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing[:5])} of its {_DATASET} missing. Copy the whole folder again.")
    return files


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name and "\0" not in name


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: it is missing. Copy the whole dataset again.")
    if path.stat().st_size <= _MOST_BYTES:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            return content
    raise InputError(f"{path}: not a JSON object. Save the dataset again: save_to_disk.")
