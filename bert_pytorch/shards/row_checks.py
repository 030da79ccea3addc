"""What rows must hold before anything indexes with them: a damaged one ends in a fault of torch's, or trains on."""

from pathlib import Path

import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.layouts import INPUT_IDS, MASKED_IDS, MASKED_POSITIONS


def unsound_row(rows: SequenceRows, structure: tuple[int, int, int] | None) -> tuple[int, str] | None:
    """Find the first row that is no sequence: its place, and what is wrong with it; None where all are sound.

    Args:
        rows: n rows.
        structure: ids of [CLS] and [SEP] and the size of the vocabulary; None where there is no vocabulary.
    """
    length, starts, width = rows.lengths, rows.segment_b_starts, rows.input_ids.shape[1]
    bad = (length < 1) | (length > width) | (starts < 1) | (starts > length)
    if bad.any():
        row = int(bad.argmax())
        return row, (
            f"found {length[row]} tokens with segment B from position {starts[row]}, in a row of {width} tokens"
        )
    if rows.static_masks is not None and (problem := _misplaced_mask(rows)) is not None:
        return problem
    if structure is None or not len(length):
        return None
    cls_id, sep_id, size = structure
    columns = [(INPUT_IDS, rows.input_ids)]
    if rows.static_masks is not None:
        columns.append((MASKED_IDS, rows.static_masks.token_ids))
    for name, ids in columns:
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            row, column = np.argwhere((ids < 0) | (ids >= size))[0].tolist()
            return row, f"{name}: found token id {ids[row, column]}, but the vocabulary has {size} tokens"
    return _misplaced_special(rows, cls_id, sep_id)


def refuse_unsound(path: Path, rows: SequenceRows, indices: np.ndarray, vocabulary: Vocabulary | None) -> None:
    """Raise `DamagedShardError` where a row read from a shard is no sequence.

    Args:
        path: the shard.
        rows: n rows of it.
        indices: int64 (n,), their numbers in the shard.
        vocabulary: of the shard, where it is known.
    """
    structure = None if vocabulary is None else (vocabulary.cls_id, vocabulary.sep_id, len(vocabulary.tokens))
    problem = unsound_row(rows, structure)
    if problem is not None:
        row, found = int(indices[problem[0]]), problem[1]
        raise damaged_row(path, row, found)


def damaged_row(path: Path, row: int, found: str) -> DamagedShardError:
    """Return the error that names a row of a shard, what was found in it, and what to do."""
    return DamagedShardError(
        f"{path}: row {row}: {found}. The file is damaged, or made with another vocabulary (--vocab_file names it). "
        f"`python -m bert_pytorch.corpus verify --input {path.parent}` names all that is wrong; build the shard again, "
        "or train without it: --on_bad_shard skip",
        path,
        row,
    )


def _misplaced_mask(rows: SequenceRows) -> tuple[int, str] | None:
    assert rows.static_masks is not None
    positions, _, counts = rows.static_masks
    used = np.arange(positions.shape[1]) < counts[:, None]
    bad = used & ((positions < 1) | (positions >= rows.lengths[:, None]))
    if not bad.any():
        return None
    row, slot = np.argwhere(bad)[0].tolist()
    found, last = positions[row, slot], rows.lengths[row] - 1
    return row, f"{MASKED_POSITIONS} has {found} in slot {slot}, wanted 1 to {last}, a token of the row"


def _misplaced_special(rows: SequenceRows, cls_id: int, sep_id: int) -> tuple[int, str] | None:
    """Look at the ends of segments: where a flipped bit moved one, or changed a token there, it shows."""
    n = np.arange(len(rows.lengths))
    ends = (("[CLS]", cls_id, np.zeros_like(n)), ("[SEP]", sep_id, rows.lengths - 1),
            ("[SEP]", sep_id, rows.segment_b_starts - 1))  # fmt: skip
    for name, token, places in ends:
        wrong = rows.input_ids[n, places] != token
        if wrong.any():
            row = int(wrong.argmax())
            place = int(places[row])
            return row, f"found token id {rows.input_ids[row, place]} at position {place}, wanted {name} ({token})"
    return None
