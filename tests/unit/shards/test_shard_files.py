"""The files: dtypes and shapes exactly as contracted, memory-mappable, equal bytes, whole or absent."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.shards.headers import read_header
from bert_pytorch.shards.mapped import OpenShard
from bert_pytorch.shards.writing import Compression, write_parts, write_shard
from tests.support.sequence_rows import assert_same_rows, make_rows, split_rows


def columns_of(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    with h5py.File(path) as file:
        return {name: (data.dtype.str, data.shape) for name, data in file.items()}


@pytest.mark.parametrize("pairs", [True, False])
def test_native_layout_is_the_forks(pairs: bool, tmp_path: Path) -> None:
    rows = make_rows(9, 16, pairs)
    write_shard(tmp_path / "s.hdf5", rows, {})
    assert columns_of(tmp_path / "s.hdf5") == {
        "input_ids": ("<i4", (9, 16)),
        "special_token_positions": ("<i4", (9, 3 if pairs else 2)),
        "next_sentence_labels": ("|i1", (9,)),
    }
    with h5py.File(tmp_path / "s.hdf5") as file:
        for row in range(9):
            positions = file["special_token_positions"][row]
            assert positions[0] == 0
            assert (file["input_ids"][row][positions[1:]] == 3).all()
            assert (file["input_ids"][row][positions[-1] + 1 :] == 0).all()
        labels = file["next_sentence_labels"][:]
    assert labels.tolist() == ([0, 1, 0, 1, 0, 1, 0, 1, 0] if pairs else [0] * 9)


def test_static_layout_is_nvidias(tmp_path: Path) -> None:
    rows = make_rows(9, 16, True, slots=5)
    assert rows.static_masks is not None
    write_shard(tmp_path / "s.hdf5", rows, {})
    assert columns_of(tmp_path / "s.hdf5") == {
        "input_ids": ("<i4", (9, 16)),
        "input_mask": ("|i1", (9, 16)),
        "segment_ids": ("|i1", (9, 16)),
        "masked_lm_positions": ("<i4", (9, 5)),
        "masked_lm_ids": ("<i4", (9, 5)),
        "next_sentence_labels": ("|i1", (9,)),
    }
    with h5py.File(tmp_path / "s.hdf5") as file:
        for row in range(9):
            size, border = rows.lengths[row], rows.segment_b_starts[row]
            assert file["input_mask"][row].tolist() == [1] * size + [0] * (16 - size)
            assert file["segment_ids"][row].tolist() == [0] * border + [1] * (size - border) + [0] * (16 - size)
            assert file["masked_lm_positions"][row].tolist() == rows.static_masks.positions[row].tolist()


@pytest.mark.parametrize("slots", [0, 5])
def test_uncompressed_shards_are_contiguous_and_gzip_ones_are_not(slots: int, tmp_path: Path) -> None:
    write_shard(tmp_path / "plain.hdf5", make_rows(9, slots=slots), {})
    write_shard(tmp_path / "gzip.hdf5", make_rows(9, slots=slots), {}, "gzip")
    with h5py.File(tmp_path / "plain.hdf5") as plain, h5py.File(tmp_path / "gzip.hdf5") as packed:
        for name in plain:
            assert plain[name].chunks is None
            assert plain[name].id.get_offset() is not None
            assert packed[name].compression == "gzip"
            assert np.array_equal(plain[name][...], packed[name][...])


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_equal_rows_give_equal_bytes(compression: str, tmp_path: Path) -> None:
    attributes = {"seed": 3, "lowercase": True, "settings": '{"a": 1}'}
    for name in ("a.hdf5", "b.hdf5"):
        write_shard(tmp_path / name, make_rows(300, 64), attributes, compression)  # type: ignore[arg-type]
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


def test_attributes_tell_how_the_shard_was_made(tmp_path: Path) -> None:
    rows = make_rows(3)
    write_shard(tmp_path / "s.hdf5", rows, {"seed": 3, "lowercase": True, "vocabulary_sha256": "ab"})
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert dict(file.attrs) == {
            "layout": "native",
            "longest": max(rows.lengths),
            "lowercase": True,
            "next_sentence": True,
            "schema_version": 1,
            "seed": 3,
            "shortest": min(rows.lengths),
            "tokens": sum(rows.lengths),
            "vocabulary_sha256": "ab",
        }


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_shard_in_parts_holds_the_rows_of_the_shard_in_one(tmp_path: Path, compression: Compression) -> None:
    rows = make_rows(50, slots=4)
    parts = [split_rows(rows, start, stop) for start, stop in ((0, 17), (17, 18), (18, 50))]
    whole = write_shard(tmp_path / "whole.hdf5", rows, {"seed": 1}, compression)
    written = write_parts(tmp_path / "parts.hdf5", iter(parts), 50, {"seed": 1}, compression)
    assert written[:3] == whole[:3] == (rows.lengths.sum(), rows.lengths.min(), 16)
    for path, said in ((tmp_path / "whole.hdf5", whole), (tmp_path / "parts.hdf5", written)):
        assert said.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert_same_rows(OpenShard(read_header(path)).rows(np.arange(50)), rows, np.arange(50))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.hdf5"
    write_shard(path, make_rows(3), {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_shard(path, make_rows(5), {"settings": object()})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.hdf5"]
