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


class RowReader(Dataset[list[torch.Tensor]]):
    """Rows of native HDF5 files in the order they are written, masked one by one in Python; one file in memory.

    As NVIDIA's and the fork's loaders: a file is read whole, an item is a row, padded to full length, its masks are
    drawn in `__getitem__`, and the default collate function stacks items.  Unlike in the fork's, positions are drawn
    without replacement and the file in memory is not changed.
    """

    def __init__(self, paths: Sequence[Path], vocabulary: Vocabulary, fraction: float, most: int) -> None:
        self._paths = list(paths)
        self._mask_id, self._num_tokens = vocabulary.mask_id, len(vocabulary.tokens)
        self._fraction, self._most = fraction, most
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
        """Return ids, segments, attention mask, labels, each (L,), and the pair's label."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number != self._loaded:
            with h5py.File(self._paths[number], "r") as file:
                self._columns = {name: file[name][:] for name in file}
            self._loaded = number
        row = index - (int(self._ends[number - 1]) if number else 0)
        input_ids = self._columns["input_ids"][row].copy()
        special = self._columns["special_token_positions"][row]
        segments, attention = np.zeros_like(input_ids), np.zeros_like(input_ids)
        segments[special[1] + 1 : special[-1] + 1] = 1
        attention[: special[-1] + 1] = 1
        labels = self._mask(input_ids, special)
        arrays = (input_ids, segments, attention, labels, self._columns["next_sentence_labels"][row])
        return [torch.from_numpy(np.asarray(array, np.int64)) for array in arrays]

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


def row_reader_batches(paths: Sequence[Path], vocabulary: Vocabulary, batch_size: int) -> Iterator[int]:
    """Yield the real tokens of each batch of one pass, in file order."""
    reader = RowReader(paths, vocabulary, fraction=0.15, most=80)
    for batch in DataLoader(reader, batch_size=batch_size, num_workers=0):
        yield int(batch[2].sum())


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
