"""Counts over sets of shards: sequences, padding, masks, token use; a map over shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.inspection.histograms import Chart, draw_up, from_dense, summary
from bert_pytorch.corpus.inspection.token_use import token_use
from bert_pytorch.progress import Progress
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.manifest import read_manifest
from bert_pytorch.shards.opening import find_shards, open_shards
from bert_pytorch.shards.shard_set import ShardSet
from bert_pytorch.shards.streams import read_parts
from bert_pytorch.vocabulary import vocabulary_sha256

_TASKS = 256

FATES = ("mask", "random", "kept")
"""What stands where a token is masked for good: [MASK], another token, itself."""


class SetTask(NamedTuple):
    """Neighbouring shards of one part of a set."""

    headers: tuple[Header, ...]
    mask_id: int
    """Of [MASK]; -1 without a vocabulary."""
    vocabulary_size: int
    """0 without a vocabulary: tokens are not counted by id."""

    @property
    def num_bytes(self) -> int:
        """Of the files."""
        return sum(header.path.stat().st_size for header in self.headers)

    def describe(self) -> str:
        """Name the first shard."""
        return f"shards from {self.headers[0].path} on"


class SetCounts(NamedTuple):
    """What was counted, over rows before corruption."""

    lengths: np.ndarray
    """int64 (L + 1,), rows of each length in tokens."""
    random_next: int
    """Pairs whose second segment is a random text."""
    fates: np.ndarray
    """int64 (3,), masked tokens by `FATES`; without a vocabulary the first two are counted together."""
    token_ids: np.ndarray
    """int64 (V,), occurrences of each id."""


def set_stats(
    folder: Path, name: str, vocabulary: Vocabulary | None, pool: PoolConfig
) -> tuple[dict[str, Any], list[Chart]]:
    """Count one set, its training part and its held-out one.

    Args:
        folder: with shards of one set, or one shard.
        name: of the set, in titles.
        vocabulary: used instead of the one beside the shards.
        pool: how the work is spread; the result does not depend on it.

    Raises:
        InputError: if the shards do not belong together or cannot be read.
    """
    result: dict[str, Any] = {}
    charts: list[Chart] = []
    for part in ("train", "eval"):
        if find_shards(folder, part):
            shards = open_shards(folder, part, vocabulary)
            counts = _count(shards, pool)
            result[part] = _as_json(shards, counts)
            if not charts:  # the held-out part looks like the training one
                title = f"{name}: length of {'training' if part == 'train' else 'held-out'} sequences"
                histogram, length = from_dense(counts.lengths), shards.sequence_length
                charts.append(draw_up(histogram, title, "tokens in a sequence", "sequences", limit=length))
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is not None:
        for part in result:
            result[part]["documents"] = getattr(manifest, part).documents
        result["settings"] = manifest.settings
    return result, charts


def _count(shards: ShardSet, pool: PoolConfig) -> SetCounts:
    vocabulary, headers = shards.vocabulary, shards.headers
    mask_id = -1 if vocabulary is None else vocabulary.id_of(vocabulary.special.mask)
    size = 0 if vocabulary is None else len(vocabulary.tokens)
    step = -(-len(headers) // _TASKS)
    tasks = [SetTask(tuple(headers[at : at + step]), mask_id, size) for at in range(0, len(headers), step)]
    with Progress("count shards", sum(task.num_bytes for task in tasks)) as progress:
        parts = run_tasks(count_shards, tasks, pool, SetTask.describe, progress, lambda task: task.num_bytes)
    return _add(parts)


def count_shards(task: SetTask) -> SetCounts:
    """Count some shards, row by row."""
    return _add([_count_rows(rows, task) for header in task.headers for rows in read_parts(header)])


def _count_rows(rows: SequenceRows, task: SetTask) -> SetCounts:
    ids, length = rows.input_ids, rows.input_ids.shape[1]
    fates = np.zeros(len(FATES), np.int64)
    if rows.static_masks is not None:
        masks, ids = rows.static_masks, ids.copy()
        row, slot = np.nonzero(np.arange(masks.positions.shape[1]) < masks.counts[:, None])
        places, originals = masks.positions[row, slot], masks.token_ids[row, slot]
        shown = ids[row, places]
        masked, kept = int((shown == task.mask_id).sum()), int((shown == originals).sum())
        fates[:] = masked, len(row) - masked - kept, kept
        ids[row, places] = originals
    inside = ids[np.arange(length) < rows.lengths[:, None]]
    inside = inside[(inside >= 0) & (inside < task.vocabulary_size)]
    return SetCounts(
        lengths=np.bincount(np.clip(rows.lengths, 0, length), minlength=length + 1),
        random_next=0 if rows.next_sentence_labels is None else int((rows.next_sentence_labels == 1).sum()),
        fates=fates,
        token_ids=np.bincount(inside, minlength=task.vocabulary_size),
    )


def _add(parts: Sequence[SetCounts]) -> SetCounts:
    lengths, random_next, fates, token_ids = zip(*parts, strict=True)
    return SetCounts(np.sum(lengths, axis=0), sum(random_next), np.sum(fates, axis=0), np.sum(token_ids, axis=0))


def _as_json(shards: ShardSet, counts: SetCounts) -> dict[str, Any]:
    histogram, length = from_dense(counts.lengths), shards.sequence_length
    cells = histogram.total * length
    packed = packed_rows(counts.lengths)
    result: dict[str, Any] = {
        "shards": len(shards.headers),
        "sequences": histogram.total,
        "sequence_length": length,
        "tokens": histogram.sum,
        "fill": round(histogram.sum / cells, 6),
        "tokens_a_sequence": summary(histogram),
        "length_histogram": counts.lengths.tolist(),
        "packed": {"rows": packed, "fill": round(histogram.sum / (packed * length), 6) if packed else 0.0},
    }
    if shards.has_next_sentence:
        result["random_next"] = round(counts.random_next / histogram.total, 6)
    if shards.static:
        masked = int(counts.fates.sum())
        result["masked"] = {"tokens": masked, "share": round(masked / max(1, histogram.sum), 6)}
        if shards.vocabulary is not None:
            shares = {fate: round(int(n) / max(1, masked), 6) for fate, n in zip(FATES, counts.fates, strict=True)}
            result["masked"] |= shares
    if shards.vocabulary is not None:
        result["vocabulary"] = token_use(counts.token_ids, shards.vocabulary, vocabulary_sha256(shards.vocabulary))
    return result


def packed_rows(lengths: np.ndarray) -> int:
    """Return how many full rows sequences fit in, put longest first into the fullest row with room (best fit).

    As in Krell et al. 2021 (Efficient Sequence Packing without Cross-contamination), on the histogram: O(L²) steps.

    Args:
        lengths: int (L + 1,), sequences of each length 0 to L, the length of a row.
    """
    longest = len(lengths) - 1
    rows = np.zeros(longest + 1, np.int64)  # by the room left
    for length in range(longest, 0, -1):
        left, room = int(lengths[length]), length
        while left and room <= longest:
            taken = min(left, int(rows[room]))
            rows[room] -= taken
            rows[room - length] += taken
            left -= taken
            room = room - length if taken and room >= 2 * length else room + 1
        several = longest // length
        full, rest = divmod(left, several)
        rows[longest - several * length] += full
        if rest:
            rows[longest - rest * length] += 1
    return int(rows.sum())
