"""The sequences of a micro-batch one by one, in plain Python, for comparing batches of different forms."""

from collections.abc import Iterable
from typing import NamedTuple

from bert_pytorch.records import IGNORED_LABEL, MicroBatch


class Sequence(NamedTuple):
    """All there is to know about one sequence."""

    input_ids: tuple[int, ...]
    """As the model sees them."""
    originals: tuple[int, ...]
    """Before masking."""
    token_type_ids: tuple[int, ...]
    masked: tuple[int, ...]
    """Positions in the sequence."""
    pair: int | None


def sequences_of(batch: MicroBatch) -> list[Sequence]:
    """Take a micro-batch apart, whatever its form; checks that positions restart."""
    found = []
    labels = {
        int(position): int(label)
        for position, label in zip(batch.masked_positions, batch.labels, strict=True)
        if label != IGNORED_LABEL
    }
    for slot, start in enumerate(batch.cu_seqlens[:-1].tolist()):
        stop = int(batch.cu_seqlens[slot + 1])
        assert batch.position_ids[start:stop].tolist() == list(range(stop - start))
        if batch.is_sequence is not None and not batch.is_sequence[slot]:
            continue
        tokens = batch.input_ids[start:stop].tolist()
        found.append(
            Sequence(
                tuple(tokens),
                tuple(labels.get(start + column, token) for column, token in enumerate(tokens)),
                tuple(batch.token_type_ids[start:stop].tolist()),
                tuple(column for column in range(stop - start) if start + column in labels),
                None if batch.next_sentence_labels is None else int(batch.next_sentence_labels[slot]),
            )
        )
    return found


def all_sequences(batches: Iterable[MicroBatch]) -> list[Sequence]:
    """Return the sequences of many micro-batches in an order that depends on nothing but themselves."""
    return sorted((sequence for batch in batches for sequence in sequences_of(batch)), key=str)
