"""Rows straight from a shard's file, some MB or a few rows at a time: nothing is mapped, nothing goes to the cache."""

from collections.abc import Iterable, Iterator

import h5py
import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts, packed
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.row_columns import rows_of, unpacked

_TOKENS_AT_ONCE = 1 << 21


def read_parts(header: Header) -> Iterator[SequenceRows]:
    """Yield all rows of a shard in order, some MB at a time, straight from the file: nothing goes to the cache.

    Raises:
        InputError: if its compressed data are damaged.
    """
    rows_at_once = max(1, _TOKENS_AT_ONCE // max(1, header.sequence_length))
    number = 0
    for start in range(0, header.columns[layouts.INPUT_IDS][1][0], rows_at_once):
        columns = _columns(header, slice(start, start + rows_at_once))
        if header.layout == "packed":
            places = packed.places_of(columns[layouts.NEXT_SENTENCE_WEIGHTS])
            columns = unpacked(header, columns, places, number + np.arange(len(places)))
            number += len(places)
        yield rows_of(header.layout, header.next_sentence, columns)


def read_rows(header: Header, indices: np.ndarray) -> SequenceRows:
    """Read a few rows straight from the file; where it is compressed, each costs a chunk.

    Args:
        header: of the shard.
        indices: int64 (n,), n > 0, within this shard, in any order, repeats allowed.

    Raises:
        InputError: if its compressed data are damaged.
    """
    if header.layout == "packed":
        weights = _columns(header, slice(None), (layouts.NEXT_SENTENCE_WEIGHTS,))[layouts.NEXT_SENTENCE_WEIGHTS]
        rows, slots = np.divmod(packed.places_of(weights)[indices], weights.shape[1])
        read, local = np.unique(rows, return_inverse=True)
        columns = unpacked(header, _columns(header, read), local * weights.shape[1] + slots, indices)
        return rows_of(header.layout, header.next_sentence, columns)
    wanted, places = np.unique(indices, return_inverse=True)
    return rows_of(
        header.layout, header.next_sentence, {name: column[places] for name, column in _columns(header, wanted).items()}
    )


def read_cls_positions(header: Header, start: int, stop: int) -> np.ndarray:
    """Read where rows of a native shard say that [CLS] stands, int (n,): always 0, so that nothing else reads it.

    Raises:
        InputError: if its compressed data are damaged.
    """
    name = layouts.SPECIAL_TOKEN_POSITIONS
    return _columns(header, slice(start, stop), (name,))[name][:, 0]


def _columns(header: Header, which: slice | np.ndarray, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    try:
        with h5py.File(header.path, "r") as file:
            return {name: file[name][which] for name in names or header.columns}
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedShardError(
            f"{header.path}: its data cannot be read ({error}). Build it again.", header.path
        ) from None
