"""`corpus pack`: Habana's layout holds every sequence exactly once, with its masks, and reads back as they were."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.row_packing import pack_lengths
from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards.headers import read_header
from bert_pytorch.shards.mapped import OpenShard
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.packed_writing import Block, most_masked_tokens, packed_columns, write_packed
from bert_pytorch.shards.streams import read_parts, read_rows
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import vocabulary_text
from tests.support.data import shared_data
from tests.support.sequence_rows import WORDS, make_rows
from tests.unit.corpus.conftest import Tool


def described(rows: SequenceRows) -> list[tuple[object, ...]]:
    """Describe each row by what is in it and nothing of its padding or slots."""
    masks = rows.static_masks
    assert masks is not None
    return [
        (
            tuple(rows.input_ids[i, : rows.lengths[i]].tolist()),
            int(rows.segment_b_starts[i]),
            None if rows.next_sentence_labels is None else int(rows.next_sentence_labels[i]),
            tuple(masks.positions[i, : masks.counts[i]].tolist()),
            tuple(masks.token_ids[i, : masks.counts[i]].tolist()),
        )
        for i in range(len(rows.lengths))
    ]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.integers(1, 9))
def test_every_sequence_gets_a_place_of_its_own(lengths: list[int], most: int) -> None:
    array = np.array(lengths)
    plan = pack_lengths(array, 64, most)
    assert np.bincount(plan.rows, array).max() <= 64
    per_row = np.bincount(plan.rows)
    assert len(per_row) == plan.num_rows
    assert per_row.min() >= 1
    assert per_row.max() <= most
    assert sorted(zip(plan.rows.tolist(), plan.slots.tolist(), strict=True)) == [
        (row, slot) for row, count in enumerate(per_row.tolist()) for slot in range(count)
    ]
    if most >= 2:  # no two rows could be one
        fill = np.sort(np.bincount(plan.rows, array)[per_row == 1])
        assert len(fill) < 2 or fill[0] + fill[1] > 64


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.booleans(), st.integers(0, 1000))
def test_packed_rows_hold_every_sequence_exactly_once(n: int, most: int, pairs: bool, seed: int) -> None:
    rows = make_rows(n, length=24, pairs=pairs, slots=4, seed=seed)
    plan = pack_lengths(rows.lengths, 24, most)
    assert rows.static_masks is not None
    mask_slots = most_masked_tokens(plan.rows, rows.static_masks.counts)
    columns = packed_columns(rows, plan.rows, plan.slots, most, mask_slots, 0)
    found = []
    for row in range(plan.num_rows):  # read as Habana's model does, written out
        for slot in range(most):
            if not columns["next_sentence_weights"][row, slot]:
                continue
            mine = np.flatnonzero(columns["input_mask"][row] == slot + 1)
            start = int(columns["next_sentence_positions"][row, slot])
            assert mine.tolist() == list(range(start, start + len(mine)))
            assert columns["positions"][row, mine].tolist() == list(range(len(mine)))
            segments = columns["segment_ids"][row, mine]
            b_start = int(segments.argmax()) if segments.any() else len(mine)
            masked = [
                (int(place) - start, int(token))
                for place, token in zip(columns["masked_lm_positions"][row], columns["masked_lm_ids"][row], strict=True)
                if place and start <= place < start + len(mine)
            ]
            label = int(columns["next_sentence_labels"][row, slot]) if pairs else None
            found.append((tuple(columns["input_ids"][row, mine].tolist()), b_start, label,
                          tuple(p for p, _ in masked), tuple(t for _, t in masked)))  # fmt: skip
    assert sorted(found, key=repr) == sorted(described(rows), key=repr)
    assert (columns["input_mask"] > 0).sum() == rows.lengths.sum()


def write_habana(path: Path, seed: int = 0) -> list[tuple[object, ...]]:
    """Write a file as Habana's packer does, with gzip and without any attribute; return its sequences."""
    rng = np.random.default_rng(seed)
    sequences: list[tuple[object, ...]] = []
    columns = {name: np.zeros((20, 32), kind) for name, kind in
               (("input_ids", "i4"), ("input_mask", "i4"), ("segment_ids", "i1"), ("positions", "i4"))}  # fmt: skip
    columns |= {name: np.zeros((20, 8), "i4") for name in ("masked_lm_positions", "masked_lm_ids")}
    columns |= {f"next_sentence_{name}": np.zeros((20, 3), kind) for name, kind in
                (("positions", "i4"), ("labels", "i1"), ("weights", "i4"))}  # fmt: skip
    for row in range(20):
        offset, slot, mask = 0, 0, 0
        for size in ((32,), (16, 16), (12, 9, 11), (10, 7))[row % 4]:
            border, label = int(rng.integers(3, size - 1)), int(rng.integers(2))
            ids = rng.integers(5, 100, size)
            ids[0], ids[border - 1], ids[-1] = 2, 3, 3
            place, token = 1, int(rng.integers(5, 100))
            ids[place] = 4
            here = slice(offset, offset + size)
            columns["input_ids"][row, here] = ids
            columns["input_mask"][row, here] = slot + 1
            columns["segment_ids"][row, offset + border : offset + size] = 1
            columns["positions"][row, here] = np.arange(size)
            columns["masked_lm_positions"][row, mask] = offset + place
            columns["masked_lm_ids"][row, mask] = token
            columns["next_sentence_positions"][row, slot] = offset
            columns["next_sentence_labels"][row, slot] = label
            columns["next_sentence_weights"][row, slot] = 1
            sequences.append((tuple(ids.tolist()), border, label, (place,), (token,)))
            offset, slot, mask = offset + size, slot + 1, mask + 1
    with h5py.File(path, "w") as file:
        for name, data in columns.items():
            file.create_dataset(name, data=data, compression="gzip")
    return sequences


def test_a_file_of_habanas_reads_as_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    wanted = write_habana(tmp_path / "train_0.hdf5")
    shards = open_shards(tmp_path, vocabulary=WORDS)
    assert (shards.num_sequences, shards.static, shards.has_next_sentence) == (len(wanted), True, True)
    order = np.random.default_rng(1).permutation(len(wanted))
    assert described(shards.rows(order)) == [wanted[i] for i in order]
    assert shards.lengths(order).tolist() == [len(wanted[i][0]) for i in order]  # type: ignore[arg-type]
    header = read_header(tmp_path / "train_0.hdf5")
    assert [row for part in read_parts(header) for row in described(part)] == wanted
    assert described(read_rows(header, np.array([3, 0, 17]))) == [wanted[3], wanted[0], wanted[17]]


def everything(folder: Path) -> SequenceRows:
    shards = open_shards(folder)
    return shards.rows(np.arange(shards.num_sequences))


@pytest.mark.parametrize(
    ("column", "place", "value", "message"),
    [
        ("next_sentence_positions", (1, 1), 500, "not one stretch"),
        ("input_mask", (2, 5), 3, "not one stretch"),
        ("next_sentence_weights", (1, 1), 0, "no slot names"),
        ("input_mask", (3, 25), -1, "no slot names"),
        ("masked_lm_positions", (3, 1), 30, "lies in no sequence"),
        ("masked_lm_positions", (3, 1), 900, "lies in no sequence"),
        ("positions", (1, 16), 16, r"positions has 16 at token 16 of its row, wanted 0: they restart"),
        ("positions", (3, 9), -9, r"positions has -9 at token 9 of its row, wanted 9"),
    ],
)
def test_hostile_packed_rows_are_named(
    column: str, place: tuple[int, int], value: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    write_habana(tmp_path / "train_0.hdf5")
    with h5py.File(tmp_path / "train_0.hdf5", "r+") as file:
        file[column][place] = value
    with pytest.raises(DamagedShardError, match=rf"train_0.hdf5: row \d+: .*{message}"):
        everything(tmp_path)


def test_our_own_file_is_mapped_in_place_and_padded_by_its_vocabulary(tmp_path: Path) -> None:
    rows = make_rows(50, slots=3)
    plan = pack_lengths(rows.lengths, 16, 4)
    write_packed(tmp_path / "train_0.hdf5", [Block(rows, plan.rows, plan.slots)], plan.num_rows, 4, 12, 1, {})
    header = read_header(tmp_path / "train_0.hdf5")
    assert header.offsets is not None
    assert header.num_rows == 50
    found = OpenShard(header).rows(np.arange(50))
    assert sorted(described(found), key=repr) == sorted(described(rows), key=repr)
    assert set(found.input_ids[np.arange(16) >= found.lengths[:, None]].tolist()) <= {1}


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_a_set_is_packed_by_one_command(masking: str, tool: Tool, tmp_path: Path) -> None:
    text = shared_data("text", "movie_reviews")
    source = tmp_path / "text"
    source.mkdir()
    for path in sorted(text.glob("*.txt"))[:8]:
        words = " ".join(path.read_text(encoding="utf-8").split()).replace(" . ", " .\n")
        (source / path.name).write_text(words + "\n", encoding="utf-8")
    vocabulary = shared_data("vocab", "bert-base-uncased-vocab.txt")
    said = tool("encode", "--input", source, "--output", tmp_path, "--vocab_file", vocabulary, "--max_seq_len", 64,
                "--masking", masking, "--shard_sequences", 90, "--eval_fraction", 0.3, "--processes", 1,
                "--short_seq_prob", 1)  # fmt: skip
    assert said.code == 0, said.err
    (encoded,) = tmp_path.glob("sequences_*")
    made = []
    for name, processes in (("one", 1), ("two", 2)):
        said = tool("pack", "--input", encoded, "--output", tmp_path / name, "--processes", processes)
        assert said.code == 0, said.err
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.hdf5")})
    assert made[0] == made[1]
    packed, before = open_shards(tmp_path / "one"), open_shards(encoded)
    assert packed.num_sequences == before.num_sequences
    assert sorted(packed.lengths(np.arange(packed.num_sequences)).tolist()) == sorted(
        before.lengths(np.arange(before.num_sequences)).tolist()
    )
    if masking == "static":
        both = [described(one.rows(np.arange(one.num_sequences))) for one in (packed, before)]
        assert sorted(both[0], key=repr) == sorted(both[1], key=repr)
    else:
        rows = packed.rows(np.arange(packed.num_sequences))
        assert rows.static_masks is not None
        ids = rows.input_ids.copy()
        owner, slot = np.nonzero(np.arange(rows.static_masks.positions.shape[1]) < rows.static_masks.counts[:, None])
        ids[owner, rows.static_masks.positions[owner, slot]] = rows.static_masks.token_ids[owner, slot]
        plain = before.rows(np.arange(before.num_sequences))
        assert sorted(ids.tolist()) == sorted(plain.input_ids.tolist())
    metadata = json.loads((tmp_path / "one_metadata.json").read_text())
    assert metadata["original_number_of_samples"] == before.num_sequences
    assert metadata["avg_seq_per_sample"] > 1
    assert tool("verify", "--input", tmp_path / "one").code == 0
    assert tool("stats", "--input", tmp_path / "one", "--output", tmp_path / "stats").code == 0
    again = tool("pack", "--input", encoded, "--output", tmp_path / "one")
    assert again.code == 0
    refused = tool("pack", "--input", encoded, "--output", tmp_path / "one", "--max_sequences_per_pack", 4)
    assert refused.code == 1
    assert "max_sequences_per_pack 3 → 4" in refused.err


def test_wrong_uses_are_one_message(tool: Tool, tmp_path: Path) -> None:
    write_shard(tmp_path / "set/train_0.hdf5", make_rows(9, slots=3), {})
    said = tool("pack", "--input", tmp_path / "set", "--output", tmp_path / "out")
    assert (said.code, "--vocab_file vocab.txt" in said.err) == (1, True)
    (tmp_path / "set/vocab.txt").write_text(vocabulary_text(WORDS))
    assert tool("pack", "--input", tmp_path / "set", "--output", tmp_path / "out").code == 0
    said = tool("pack", "--input", tmp_path / "out", "--output", tmp_path / "again")
    assert (said.code, "packed already" in said.err) == (1, True)
    said = tool("pack", "--input_dir", "x", "--max_sequence_length", "128")
    assert said.code == 2
    assert "use --input" in said.err
    assert "the shards say how long" in said.err
