"""`verify`: a set that is not whole is never called sound, and one odd file hides no other problem."""

import json
from pathlib import Path

import h5py

from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import vocabulary_text
from tests.support.sequence_rows import WORDS, make_rows
from tests.unit.corpus.conftest import Tool


def test_our_shards_without_their_manifest_are_not_whole_and_foreign_ones_unknown(tool: Tool, tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(4), {})
    (tmp_path / "vocab.txt").write_text(vocabulary_text(WORDS))
    said = tool("verify", "--input", tmp_path)
    assert said.code == 0, said.err
    assert "sound. 1 shard(s)" in said.out
    assert "no manifest: completeness unknown" in said.out
    write_shard(tmp_path / "train_0.hdf5", make_rows(4), {"fingerprint": "ab"})
    said = tool("verify", "--input", tmp_path)
    assert said.code == 1
    assert f"{tmp_path}: no manifest.json: the set is not whole; start the same build again" in said.err


def test_an_odd_file_is_a_line_among_the_others(tool: Tool, tmp_path: Path) -> None:
    for name in ("links", "manifest", "long"):
        write_shard(tmp_path / name / "train_1.hdf5", make_rows(4), {})
    (tmp_path / "links/train_0.hdf5").symlink_to(tmp_path / "gone.hdf5")
    (tmp_path / "links/train_2.hdf5").mkdir()
    (tmp_path / "links/train_3.hdf5").write_bytes(b"")
    (tmp_path / "manifest/manifest.json").mkdir()
    manifest = {"layout": "native", "sequence_length": 10**12, "next_sentence": True}
    (tmp_path / "long/manifest.json").write_text(json.dumps(manifest))
    said = tool("verify", "--input", tmp_path)
    assert said.code == 1
    for name in ("train_0.hdf5", "train_2.hdf5"):
        assert f"  - {tmp_path}/links/{name}: a folder, a link to nothing or a device, wanted a file" in said.err
    assert f"  - {tmp_path}/links/train_3.hdf5: the file is empty" in said.err
    assert f"  - {tmp_path}/manifest/manifest.json: it is a folder where a file is wanted" in said.err
    assert "long/manifest.json: missing or wrong: " in said.err
    assert "sequence_length" in said.err


def test_rows_that_no_writer_makes_are_found(tool: Tool, tmp_path: Path) -> None:
    write_shard(tmp_path / "native/train_0.hdf5", make_rows(4), {})
    write_shard(tmp_path / "static/train_0.hdf5", make_rows(4, slots=3), {})
    with h5py.File(tmp_path / "native/train_0.hdf5", "r+") as file:
        file["special_token_positions"][2, 0] = 1
    with h5py.File(tmp_path / "static/train_0.hdf5", "r+") as file:
        file["masked_lm_positions"][0] = file["masked_lm_ids"][0] = 0
        file["masked_lm_ids"][1, 2] = 9
    said = tool("verify", "--input", tmp_path)
    assert said.code == 1
    lines = [line.partition("hdf5: ")[2] for line in said.err.splitlines()[1:]]
    assert sorted(lines) == [
        "row 0: none of its tokens is masked (1 such row(s))",
        "row 1: masked_lm_ids holds an id in a slot without a position (1 such row(s))",
        "row 2: special_token_positions does not start with 0 (1 such row(s))",
    ]
