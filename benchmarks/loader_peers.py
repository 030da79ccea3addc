"""Loaders of the kind that others train BERT with, for `benchmarks.loader`: a reader of HDF5 rows, and `datasets`."""

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bert_pytorch.records import SequenceRows, Vocabulary

DATASETS_VERSION = "5.2.0"
IGNORED = -100


class FileRows(Dataset[list[torch.Tensor]]):
    """Rows of HDF5 files in the order they are written, one by one; a file is read whole, one is in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        sizes = []
        for path in self._paths:
            with h5py.File(path, "r") as file:
                sizes.append(len(file["next_sentence_labels"]))
        self._ends = np.cumsum(sizes)
        self._loaded, self._columns = -1, dict[str, np.ndarray]()

    def __len__(self) -> int:
        """Rows of all files."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """Return ids, segments, attention mask, labels, each int64 (L,), and the pair's label."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number != self._loaded:
            with h5py.File(self._paths[number], "r") as file:
                self._columns = {name: file[name][:] for name in file}
            self._loaded = number
        row = index - (int(self._ends[number - 1]) if number else 0)
        arrays = self._item({name: column[row] for name, column in self._columns.items()})
        return [torch.from_numpy(np.asarray(array, np.int64)) for array in arrays]

    def _item(self, row: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        raise NotImplementedError


class RowReader(FileRows):
    """Native rows, masked one by one in Python.

    As the fork's loader: an item is a row, padded to full length, its masks are drawn in `__getitem__`, and the default
    collate function stacks items.  Unlike there, positions are drawn without replacement and the file in memory is not
    changed.
    """

    def __init__(self, paths: Sequence[Path], vocabulary: Vocabulary, fraction: float, most: int) -> None:
        super().__init__(paths)
        self._mask_id, self._num_tokens = vocabulary.mask_id, len(vocabulary.tokens)
        self._fraction, self._most = fraction, most

    def _item(self, row: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        input_ids, special = row["input_ids"].copy(), row["special_token_positions"]
        segments, attention = np.zeros_like(input_ids), np.zeros_like(input_ids)
        segments[special[1] + 1 : special[-1] + 1] = 1
        attention[: special[-1] + 1] = 1
        labels = self._mask(input_ids, special)
        return input_ids, segments, attention, labels, row["next_sentence_labels"]

    def _mask(self, input_ids: np.ndarray, special: np.ndarray) -> np.ndarray:
        specials = set(special.tolist())
        candidates = [place for place in range(special[-1]) if place not in specials]
        count = min(self._most, max(1, round(self._fraction * len(candidates))))
        labels = np.full_like(input_ids, IGNORED)
        for place in np.random.choice(candidates, count, replace=False):
            labels[place] = input_ids[place]
            draw = np.random.random()
            if draw < 0.8:
                input_ids[place] = self._mask_id
            elif draw < 0.9:
                input_ids[place] = np.random.randint(self._num_tokens)
        return labels


class StaticRowReader(FileRows):
    """Rows that were masked when they were written, as NVIDIA's loader reads them: labels are laid out in Python."""

    def _item(self, row: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        labels = np.full_like(row["input_ids"], IGNORED)
        used = np.count_nonzero(row["masked_lm_positions"])
        labels[row["masked_lm_positions"][:used]] = row["masked_lm_ids"][:used]
        return row["input_ids"], row["segment_ids"], row["input_mask"], labels, row["next_sentence_labels"]


def batches_of(reader: FileRows, batch_size: int) -> Iterator[int]:
    """Yield the real tokens of each batch of one pass, in file order."""
    for batch in DataLoader(reader, batch_size=batch_size, num_workers=0):
        yield int(batch[2].sum())


def row_reader_batches(paths: Sequence[Path], vocabulary: Vocabulary, batch_size: int) -> Iterator[int]:
    """Yield the real tokens of each batch of native files; see `batches_of`."""
    return batches_of(RowReader(paths, vocabulary, fraction=0.15, most=80), batch_size)


def datasets_batches(rows: SequenceRows, vocabulary: Vocabulary, folder: Path) -> Callable[[int, int], Iterator[int]]:
    """Store rows as a memory-mapped `datasets` set and return what yields the real tokens of each batch of a pass.

    The set holds what a tokenizer returns for the same text, special tokens marked; it is shuffled, and transformers'
    `DataCollatorForLanguageModeling` masks and pads.
    """
    if importlib.util.find_spec("datasets") is None:
        raise SystemExit(f"error: the peer is missing; type: pip install datasets=={DATASETS_VERSION}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    special = np.isin(rows.input_ids, vocabulary.structural_ids)
    sizes = list(zip(rows.lengths.tolist(), rows.segment_b_starts.tolist(), strict=True))
    columns: dict[str, Any] = {
        "input_ids": [row[:size] for row, (size, _) in zip(rows.input_ids, sizes, strict=True)],
        "token_type_ids": [np.repeat([0, 1], [start, size - start]) for size, start in sizes],
        "special_tokens_mask": [row[:size].astype(np.int64) for row, (size, _) in zip(special, sizes, strict=True)],
    }
    if rows.next_sentence_labels is not None:
        columns["next_sentence_label"] = rows.next_sentence_labels
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns).save_to_disk(folder / "arrow")
    (folder / "vocab.txt").write_text("\n".join(vocabulary.tokens) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=vocabulary.lowercase)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    stored = datasets.load_from_disk(str(folder / "arrow"))

    def batches(seed: int, batch_size: int) -> Iterator[int]:
        shuffled = stored.shuffle(seed=seed)
        for batch in DataLoader(shuffled, batch_size=batch_size, collate_fn=collator, num_workers=0):
            yield int(batch["attention_mask"].sum())

    return batches
