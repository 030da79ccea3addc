"""Packing in pieces: nothing lost between them, memory that a shard's size does not raise, disks that fill up."""

import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.corpus import packed_shards
from bert_pytorch.corpus.pack_metadata import describe_packing
from bert_pytorch.corpus.packed_shards import PackTask, pack_shard
from bert_pytorch.corpus.sequences import Frame
from bert_pytorch.data.masking import MaskingConfig, policy_for
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import streams
from bert_pytorch.shards.headers import read_header
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.streams import read_parts
from bert_pytorch.shards.writing import Compression, row_bytes, write_shard
from tests.support.sequence_rows import WORDS, make_rows

LENGTH = 32
FRAME = Frame(LENGTH, WORDS.cls_id, WORDS.sep_id, WORDS.pad_id, True)


def task_of(folder: Path, rows: SequenceRows, compression: Compression = "none") -> PackTask:
    write_shard(folder / "set/train_0.hdf5", rows, {})
    policy = policy_for(MaskingConfig(max_predictions_per_seq=5), WORDS) if rows.static_masks is None else None
    target = folder / f"{compression}/train_0.hdf5"
    return PackTask(folder / "set/train_0.hdf5", target, 0, FRAME, policy, 1, 3, 8, compression, {})


def in_small_pieces(monkeypatch: pytest.MonkeyPatch, sequences: int = 20) -> None:
    monkeypatch.setattr(streams, "_TOKENS_AT_ONCE", LENGTH * sequences // packed_shards._PARTS_PLANNED)
    monkeypatch.setattr(packed_shards, "_ROWS_AT_ONCE", 4)


def sequences_of(rows: SequenceRows) -> list[tuple[object, ...]]:
    """Describe sequences before masking, and how many of their tokens are masked."""
    masks, found = rows.static_masks, []
    for row, length in enumerate(rows.lengths.tolist()):
        ids, masked = rows.input_ids[row, :length].copy(), 0
        if masks is not None:
            masked = int(masks.counts[row])
            ids[masks.positions[row, :masked]] = masks.token_ids[row, :masked]
        assert rows.next_sentence_labels is not None
        label = int(rows.next_sentence_labels[row])
        found.append((tuple(ids.tolist()), int(rows.segment_b_starts[row]), label, masked))
    return sorted(found, key=repr)


@pytest.mark.parametrize("count", [1, 19, 20, 21, 203])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_sequence_is_in_one_piece_and_comes_with_its_masks(
    compression: Compression, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pieces(monkeypatch)
    rows = make_rows(count, LENGTH, slots=4, seed=count)
    task = task_of(tmp_path, rows, compression)
    record = pack_shard(task)
    parts = list(read_parts(read_header(task.target)))
    assert sorted((found for part in parts for found in sequences_of(part)), key=repr) == sequences_of(rows)
    tokens, lengths = int(rows.lengths.sum()), rows.lengths.tolist()
    assert (record.rows, record.tokens, record.shortest, record.longest) == (count, tokens, min(lengths), max(lengths))
    first = task.target.read_bytes()
    assert pack_shard(task) == record
    assert task.target.read_bytes() == first


def test_masks_follow_the_number_of_a_sequence_and_not_its_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(tmp_path, make_rows(150, LENGTH, seed=3))
    found = []
    for sequences in (1 << 20, 20, 64):
        in_small_pieces(monkeypatch, sequences)
        pack_shard(task)
        parts = read_parts(read_header(task.target))
        found.append(sorted(part.input_ids[row, :n].tolist() for part in parts for row, n in enumerate(part.lengths)))
    assert found[0] == found[1] == found[2]


def test_a_shard_of_four_times_the_size_takes_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pieces(monkeypatch, 200)
    monkeypatch.setattr(packed_shards, "_ROWS_AT_ONCE", 64)
    rows, peaks = make_rows(1000, LENGTH, slots=4), []
    for times in (1, 4):
        masks = rows.static_masks
        assert masks is not None
        assert rows.next_sentence_labels is not None
        several = SequenceRows(
            np.tile(rows.input_ids, (times, 1)), np.tile(rows.lengths, times), np.tile(rows.segment_b_starts, times),
            np.tile(rows.next_sentence_labels, times),
            type(masks)(np.tile(masks[0], (times, 1)), np.tile(masks[1], (times, 1)), np.tile(masks[2], times)),
        )  # fmt: skip
        task = task_of(tmp_path / str(times), several)
        pack_shard(task)  # what is made once is there
        tracemalloc.start()
        pack_shard(task)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = 3000 * row_bytes("nvidia", LENGTH, 4)
    assert peaks[1] - peaks[0] < grown / 4


FILL_UP = """
import resource, sys
from pathlib import Path
import numpy as np
from bert_pytorch.shards.packed_writing import Block, write_packed
from tests.support.sequence_rows import make_rows

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
blocks = [Block(make_rows(400, 64, slots=4, seed=seed), np.arange(400), np.zeros(400, int)) for seed in range(3)]
try:
    write_packed(Path(sys.argv[1]), blocks, 1200, 1, 4, 0, {}, sys.argv[2])
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_disk_that_fills_up_is_an_error_and_neither_a_crash_nor_a_file(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "train_0.hdf5"
    ended = subprocess.run(
        [sys.executable, "-c", FILL_UP, str(path), compression], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "File too large" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_has_habanas_keys_and_true_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pieces(monkeypatch)
    rows = make_rows(203, LENGTH, slots=4)
    task = task_of(tmp_path, rows)
    pack_shard(task)
    found = describe_packing([task.target, task.target], LENGTH, 3)
    with h5py.File(task.target) as file:
        owners = file["input_mask"][:]
    kinds = Counter(tuple(sorted(Counter(row[row > 0].tolist()).values())) for row in owners)
    n, packed, tokens = 2 * 203, 2 * len(owners), 2 * int(rows.lengths.sum())
    top = found.pop("top_8_strategies")
    assert [kinds[tuple(kind)] for kind in top] == sorted(kinds.values(), reverse=True)[:8]
    assert found == pytest.approx({
        "avg_seq_per_sample": n / packed,
        "compression_ratio": 1 - packed / n,
        "expected_speed_up": n / packed,
        "theoretical_speed_up": LENGTH / (tokens / n),
        "original_number_of_samples": n,
        "new_number_of_samples": packed,
        "number_of_sequences_dropped": 0,
        "number_of_strategies_utilized": len(kinds),
        "padding_tokens_original_dataset": int((owners.shape[1] - rows.lengths).sum()) * 2,
        "padding_tokens_packed_dataset": int((owners == 0).sum()) * 2,
        "packing_efficiency": (owners > 0).mean(),
        "max_sequence_length": LENGTH,
        "max_sequences_per_pack": 3,
    })  # fmt: skip
    assert open_shards(task.target.parent, vocabulary=WORDS).num_sequences == 203
