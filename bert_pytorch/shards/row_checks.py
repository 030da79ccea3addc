"""What a shard's rows must hold before anything indexes with them: a damaged one would end in a fault of torch's."""

from pathlib import Path

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards.layouts import MASKED_POSITIONS


def refuse_unknown_ids(path: Path, column: str, ids: np.ndarray, size: int) -> None:
    """Raise `InputError` where an id is none of a vocabulary of `size` tokens."""
    for found in (ids.max(initial=0), ids.min(initial=0)):
        if not 0 <= found < size:
            raise InputError(
                f"{path}: {column}: found token id {found}, but the vocabulary has {size} tokens. "
                "This shard was made with another vocabulary, to be named with --vocab_file, or it is damaged."
            )


def refuse_misplaced(path: Path, rows: SequenceRows, indices: np.ndarray) -> None:
    """Raise `InputError` where a length or masked position is none of its row's.

    Args:
        path: the shard, for the message.
        rows: n rows of it.
        indices: int64 (n,), their numbers in the shard.
    """
    length, starts, width = rows.lengths, rows.segment_b_starts, rows.input_ids.shape[1]
    bad = np.flatnonzero((length < 1) | (length > width) | (starts < 1) | (starts > length))
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{path}: row {indices[row]}: found {length[row]} tokens with segment B from position {starts[row]}, "
            f"in a row of {width}. The file is damaged; build it again or leave it out."
        )
    if rows.static_masks is not None:
        positions, _, counts = rows.static_masks
        used = np.arange(positions.shape[1]) < counts[:, None]
        bad_rows, slots = np.nonzero(used & ((positions < 1) | (positions >= length[:, None])))
        if len(bad_rows):
            row, slot = bad_rows[0], slots[0]
            raise InputError(
                f"{path}: row {indices[row]}: {MASKED_POSITIONS} has {positions[row, slot]} in slot {slot}, wanted "
                f"1 to {length[row] - 1}, a token of the row. The file is damaged; build it again or leave it out."
            )
