"""Sets of shards: equal sizes, several lengths in one pass, bins of length, the kinds of sequences."""

import collections
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus import sets
from bert_pytorch.corpus.shard_rows import deal_rows
from bert_pytorch.corpus.token_blocks import TokenBlock
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.tokenization.tokenizer import load_tokenizer
from tests.unit.corpus.conftest import Tool, contents


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4).flatmap(lambda bins: st.lists(st.lists(st.integers(0, 9), min_size=bins, max_size=bins))),
    st.integers(1, 30),
)
def test_shards_are_equal_within_one_row_and_hold_each_row_once_bin_by_bin(
    counts: list[list[int]], rows_a_shard: int
) -> None:
    blocks = [
        TokenBlock(Path(str(number)), number, documents=1, rows={64: bins}, histograms={})
        for number, bins in enumerate(counts)
    ]
    shards = deal_rows(blocks, 64, rows_a_shard)
    dealt = [
        (piece.block_number, row) for pieces in shards for piece in pieces for row in range(piece.start, piece.stop)
    ]
    bin_of = {
        (number, row): index
        for number, bins in enumerate(counts)
        for row, index in enumerate(np.repeat(np.arange(len(bins)), bins).tolist())
    }
    assert sorted(dealt) == sorted(bin_of)
    assert [bin_of[row] for row in dealt] == sorted(bin_of.values())
    sizes = [sum(piece.stop - piece.start for piece in pieces) for pieces in shards]
    assert len(shards) == -(-len(dealt) // rows_a_shard)
    assert not sizes or (max(sizes) <= rows_a_shard and max(sizes) - min(sizes) <= 1)


def all_rows(folder: Path, part: str = "train") -> SequenceRows:
    shards = open_shards(folder, part)  # type: ignore[arg-type]
    return shards.rows(np.arange(shards.num_sequences))


def encode(tool: Tool, text: Path, output: Path, vocabulary: Path, *options: object) -> list[Path]:
    words = ["--input", text, "--output", output, "--vocab_file", vocabulary, "--processes", 1, "--block_bytes", 30000]
    said = tool("encode", *words, *options)
    assert said.code == 0, said.err
    said = tool("verify", "--input", output)
    assert said.code == 0, said.err
    return sorted(output.glob("sequences_*"))


def test_several_lengths_in_one_pass_are_those_made_one_by_one(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    together = encode(
        tool, formatted_text, tmp_path / "both", vocabulary, "--max_seq_len", 64, 256, "--short_seq_prob", 0.1, 0
    )
    assert len(together) == 2
    for length, short in ((64, 0.1), (256, 0)):
        alone = encode(
            tool, formatted_text, tmp_path / f"{length}", vocabulary,
            "--max_seq_len", length, "--short_seq_prob", short,
        )  # fmt: skip
        assert contents(alone[0]) == contents(tmp_path / "both" / alone[0].name)
    assert not list((tmp_path / "both").glob(".tokens*"))


def test_shards_are_equal_and_the_manifest_tells_lengths(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    options = ["--max_seq_len", 64, "--shard_bytes", 30_000, "--bin_size", 16, "--eval_fraction", 0.2]
    (folder,) = encode(tool, formatted_text, tmp_path, vocabulary, *options)
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in ("train", "eval"):
        records = [record for record in manifest["shards"] if record["name"].startswith(part)]
        counts = [record["rows"] for record in records]
        assert max(counts) - min(counts) <= 1
        assert all((folder / record["name"]).stat().st_size <= 30_000 + 8192 for record in records)  # HDF5's headers
        lengths = all_rows(folder, part).lengths
        assert manifest[part]["length_histogram"] == np.bincount(lengths, minlength=65).tolist()
        bins = (lengths - 1) // 16
        assert (np.diff(bins) >= 0).all()
        ends = np.cumsum(counts)
        for record, end, count in zip(records, ends, counts, strict=True):
            inside = lengths[end - count : end]
            assert (record["shortest"], record["longest"]) == (inside.min(), inside.max())
    assert len([record for record in manifest["shards"] if record["name"].startswith("train")]) > 3


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_full_sentences_cross_documents_and_their_separators_are_never_masked(
    masking: str, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    options = ["--sequences", "full_sentences", "--short_seq_prob", 0, "--max_seq_len", 512, "--eval_fraction", 0]
    (folder,) = encode(tool, formatted_text, tmp_path, vocabulary, *options, "--masking", masking)
    assert folder.name.endswith("next_seq_task_false")
    rows = all_rows(folder)
    ids = rows.input_ids.copy()
    if rows.static_masks is not None:
        row, slot = np.nonzero(np.arange(rows.static_masks.positions.shape[1]) < rows.static_masks.counts[:, None])
        ids[row, rows.static_masks.positions[row, slot]] = rows.static_masks.token_ids[row, slot]
    tokenizer = load_tokenizer(vocabulary)
    cls_id, sep_id = tokenizer.vocabulary.cls_id, tokenizer.vocabulary.sep_id
    inner = [row[1 : length - 1] for row, length in zip(ids, rows.lengths, strict=True)]
    assert sum((row == sep_id).sum() for row in inner) > 3
    assert all(sep_id not in (row[0], row[-1]) for row in inner)
    found = collections.Counter(token for row in inner for token in row.tolist() if token != sep_id)
    lines = [line for path in formatted_text.glob("*.txt") for line in path.read_text().splitlines()]
    assert found == collections.Counter(tokenizer.encode_flat(lines).ids.tolist())
    if rows.static_masks is not None:
        assert not np.isin(rows.static_masks.token_ids[row, slot], [cls_id, sep_id]).any()
        assert ((ids == sep_id) == (rows.input_ids == sep_id)).all()


def test_vocabularies_sets_and_the_output_below_the_input_are_no_text(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    before = encode(tool, formatted_text, tmp_path / "apart", vocabulary, "--max_seq_len", 64)
    assert tool("vocab", "--input", formatted_text, "--output", formatted_text / "vocab", "--vocab_size", 300).code == 0
    options = ["--max_seq_len", 64, "--overwrite"]
    for _ in range(2):
        within = encode(tool, formatted_text, formatted_text / "out", vocabulary, *options)
        assert contents(within[0]) == contents(before[0])
        options = ["--max_seq_len", 64]


def test_unfinished_text_below_the_input_is_noticed(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    (formatted_text / "unfinished.json").write_text("{}")
    words = ["--input", tmp_path, "--output", tmp_path / "out", "--vocab_file", vocabulary]
    said = tool("encode", *words)
    assert said.code == 1
    assert "formatted: its formatting is not finished" in said.err


@pytest.mark.parametrize("damage", ["shard", "vocabulary", "tokens"])
def test_damage_is_mended_by_the_same_command(
    damage: str, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--max_seq_len", 64, "--shard_sequences", 50]
    (folder,) = encode(tool, formatted_text, tmp_path / "out", vocabulary, *options)
    whole = contents(folder)
    if damage == "shard":
        (folder / "train_1.hdf5").write_bytes(whole["train_1.hdf5"][:1000])
    elif damage == "vocabulary":
        (folder / "vocab.txt").unlink()
    else:
        (folder / "train_1.hdf5").unlink()
        with monkeypatch.context() as patched:
            patched.setattr("bert_pytorch.corpus.sets.make_shard", None)  # stops when the text is tokenized
            words = ["--input", formatted_text, "--output", tmp_path / "out", "--vocab_file", vocabulary]
            assert tool("encode", *words, "--processes", 1, "--block_bytes", 30000, *options).code == 1
        (tokens,) = (tmp_path / "out").glob(".tokens-*")
        for path in tokens.glob("*.safetensors"):
            path.write_bytes(path.read_bytes()[:100])
    encode(tool, formatted_text, tmp_path / "out", vocabulary, *options)
    assert contents(folder) == whole
    assert not list((tmp_path / "out").glob(".tokens-*"))


def test_static_rows_have_the_slots_that_their_length_needs(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    folders = encode(
        tool, formatted_text, tmp_path, vocabulary, "--masking", "static", "--max_seq_len", 64, 128, 512,
        "--short_seq_prob", 0.1,
    )  # fmt: skip
    slots = {}
    for folder in folders:
        masks = all_rows(folder).static_masks
        assert masks is not None
        slots[json.loads((folder / "manifest.json").read_text())["sequence_length"]] = masks.positions.shape[1]
    assert slots == {64: 10, 128: 20, 512: 80}


def test_the_rows_of_this_version_are_known(tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path) -> None:
    """Other rows from the same settings and text need another `sets._VERSION`, or builds of two versions are mixed."""
    (folder,) = encode(tool, formatted_text, tmp_path, vocabulary, "--max_seq_len", 64, "--masking", "static")
    rows = all_rows(folder)
    assert (sets._VERSION, hashlib.sha256(rows.input_ids.tobytes()).hexdigest()[:16]) == (3, "ebd2951a0992d20b")
