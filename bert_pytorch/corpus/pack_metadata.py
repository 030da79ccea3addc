"""`{folder}_metadata.json` beside a packed set, with the keys of Habana's packer; their training reads one of them.

`avg_seq_per_sample` divides its gradient accumulation.  One key means something else here: `top_8_strategies` are the
eight commonest rows as the lengths in them, where Habana's are numbers in a list that is nowhere written.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bert_pytorch.shards.layouts import INPUT_MASK

_ROWS_AT_ONCE = 1024
_COMMONEST = 8


def describe_packing(paths: Iterable[Path], row_length: int, max_sequences: int) -> dict[str, Any]:
    """Count over finished shards of the packed layout.

    Args:
        paths: of the training shards.
        row_length: tokens of a row.
        max_sequences: slots for sequences of a row.
    """
    kinds: Counter[tuple[int, ...]] = Counter()
    for path in paths:
        kinds.update(kinds_of_rows(path, max_sequences))
    rows = kinds.total()
    sequences = sum(len(kind) * count for kind, count in kinds.items())
    tokens = sum(sum(kind) * count for kind, count in kinds.items())
    commonest = sorted(kinds, key=lambda kind: (-kinds[kind], kind))[:_COMMONEST]
    return {
        "avg_seq_per_sample": sequences / rows,
        "compression_ratio": 1 - rows / sequences,
        "expected_speed_up": sequences / rows,
        "theoretical_speed_up": row_length * sequences / tokens,
        "original_number_of_samples": sequences,
        "new_number_of_samples": rows,
        "number_of_sequences_dropped": 0,
        "number_of_strategies_utilized": len(kinds),
        "padding_tokens_original_dataset": sequences * row_length - tokens,
        "padding_tokens_packed_dataset": rows * row_length - tokens,
        "packing_efficiency": tokens / (rows * row_length),
        "top_8_strategies": [list(kind) for kind in commonest],
        "max_sequence_length": row_length,
        "max_sequences_per_pack": max_sequences,
    }


def kinds_of_rows(path: Path, max_sequences: int) -> Counter[tuple[int, ...]]:
    """Count the rows of a packed shard by the lengths of their sequences, ascending: a strategy of Habana's each."""
    kinds: Counter[tuple[int, ...]] = Counter()
    for lengths in _lengths_by_slot(path, max_sequences):
        found, counts = np.unique(np.sort(lengths, axis=1), axis=0, return_counts=True)
        for kind, count in zip(found.tolist(), counts.tolist(), strict=True):
            kinds[tuple(length for length in kind if length)] += count
    return kinds


def _lengths_by_slot(path: Path, max_sequences: int) -> Iterator[np.ndarray]:
    """Yield the tokens in each slot of some rows, int64 (k, K)."""
    with h5py.File(path, "r") as file:
        owners = file[INPUT_MASK]
        for start in range(0, len(owners), _ROWS_AT_ONCE):
            part = owners[start : start + _ROWS_AT_ONCE]
            cells = np.arange(len(part))[:, None] * (max_sequences + 1) + part
            counts = np.bincount(cells.ravel(), minlength=len(part) * (max_sequences + 1))
            yield counts.reshape(len(part), -1)[:, 1:]
