"""Which files of text a name stands for, and which of them are held out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from bert_pytorch.columnar.datasets import dataset_files, dataset_splits, is_dataset, is_dataset_dictionary
from bert_pytorch.errors import InputError
from bert_pytorch.shards.opening import Split
from bert_pytorch.vocabulary import MERGES_TEXT, VOCABULARY_FILES

_T = TypeVar("_T")
_Part = Literal["train", "validation", "test"]
_WORDS: dict[_Part, str] = {
    "train": "train|training",
    "validation": "validation|valid|dev|val",
    "test": "test|testing|eval|evaluation",
}
"""By which the Hugging Face hub tells splits apart, in the names of files, else of folders."""
_HELD_OUT: tuple[_Part, ...] = ("validation", "test")
"""The first one there is evaluated on."""
_PLAIN = re.compile(r"\.(txt|jsonl|csv|tsv)(\.(gz|bz2|zst))?$", re.IGNORECASE)


def is_text(path: Path) -> bool:
    """Whether a name stands for text that can be trained on: Parquet files, or a dataset saved to disk.

    Raises:
        InputError: if it is text of a kind that is not read here, or a folder of both text and shards.
    """
    if path.is_dir():
        if is_dataset(path) or is_dataset_dictionary(path):
            return True
        found, shard = next(iter(_parquet_files(path)), None), next(path.rglob("*.hdf5"), None)
        if found is None and shard is None and (plain := _plain_file(path)) is not None:
            raise _plain_text(plain)
        if found is not None and shard is not None:
            raise InputError(f"{path}: both text and shards in one folder; name one of them:\n  - {found}\n  - {shard}")
        return found is not None
    if path.suffix.lower() == ".arrow" and path.is_file():
        raise InputError(f"{path}: one file of a dataset. Name its folder, the one that `save_to_disk` wrote.")
    if path.is_file() and _PLAIN.search(path.name):
        raise _plain_text(path)
    return path.suffix.lower() == ".parquet"


def is_divided(folder: Path) -> bool:
    """Whether a folder of text may have a held-out part beside its training part: one dataset alone has not."""
    return not is_dataset(folder)


def find_text_files(path: Path, split: Split) -> list[Path]:
    """List the files of one part, in order; an empty list where there are none.

    A dictionary of datasets and a folder of Parquet files are divided: validation, else test, is the held-out part.
    What is not divided belongs to whichever part it is named for.

    Raises:
        InputError: if there is no such file, or a dataset is damaged.
    """
    if is_dataset(path):
        return dataset_files(path)
    if is_dataset_dictionary(path):
        splits = dataset_splits(path)
        chosen = _of(split, splits, [_part_of(Path(name)) for name in splits])
        return [file for name in chosen for file in dataset_files(path / name)]
    if path.is_dir():
        files = sorted(_parquet_files(path))
        return _of(split, files, [_part_of(file.relative_to(path)) for file in files])
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder. Check the spelling of the path.")
    return [path]


def nothing_found(path: Path, split: Split) -> InputError:
    """Return the error for a folder without the part that is wanted."""
    wanted = "training text; text named validation or test is never trained on"
    if split == "eval":
        wanted = "held-out text (a split or files named validation or test)"
    return InputError(f"{path}: no {wanted}. Name a folder or file that has some.")


def _parquet_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.parquet") if file.is_file() and not file.name.startswith(".")]


def _plain_file(folder: Path) -> Path | None:
    others = (*VOCABULARY_FILES, MERGES_TEXT)
    return next((file for file in folder.rglob("*.*") if _PLAIN.search(file.name) and file.name not in others), None)


def _plain_text(path: Path) -> InputError:
    return InputError(
        f"{path}: it is plain text; what is trained on is shards (*.hdf5), *.parquet or a Hugging Face dataset. "
        f"Make shards: python -m bert_pytorch.corpus format --input {path} --output FORMATTED, then "
        "python -m bert_pytorch.corpus encode --input FORMATTED --output DIR"
    )


def _part_of(path: Path) -> _Part:
    for name in (path.stem, *(folder.name for folder in path.parents)):
        for part, words in _WORDS.items():
            if re.search(rf"(?:^|[-._ \d])(?:{words})(?:[-._ \d]|$)", name, re.IGNORECASE):
                return part
    return "train"


def _of(split: Split, items: Sequence[_T], parts: Sequence[_Part]) -> list[_T]:
    wanted: _Part = "train"
    if split == "eval":
        wanted = next((part for part in _HELD_OUT if part in parts), "validation")
    return [item for item, part in zip(items, parts, strict=True) if part == wanted]
