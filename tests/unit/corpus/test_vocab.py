"""`vocab` for byte-level BPE, what a sample may cost, and checking rows of either kind of vocabulary."""

from pathlib import Path

import numpy as np
import pytest

from bert_pytorch.corpus.plan import find_documents, read_documents
from bert_pytorch.corpus.vocabulary import sample_documents
from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer
from bert_pytorch.vocabulary import continues_word, extends, vocabulary_sha256
from tests.support.vocabularies import small_byte_bpe, small_vocabulary
from tests.unit.corpus.conftest import Tool, contents


def test_vocab_of_byte_bpe_is_kept_and_told_apart(tool: Tool, formatted_text: Path, tmp_path: Path) -> None:
    command = ("vocab", "--input", formatted_text, "--output", tmp_path, "--vocab_size", 700, "--no-lowercase")
    assert tool(*command, "--kind", "byte_bpe").code == 0
    vocabulary = load_tokenizer(tmp_path).vocabulary
    assert (vocabulary.kind, len(vocabulary.tokens), vocabulary.pad_id) == ("byte_bpe", 700, 1)
    assert (vocabulary.lowercase, vocabulary.add_prefix_space) == (False, True)
    before = contents(tmp_path)
    assert tool(*command, "--kind", "byte_bpe").code == 0
    assert contents(tmp_path) == before
    assert "add_prefix_space True → False" in tool(*command, "--kind", "byte_bpe", "--no-add_prefix_space").err
    assert tool(*command).code == 1
    assert tool(*command, "--overwrite").code == 0
    assert load_tokenizer(tmp_path).vocabulary.kind == "wordpiece"
    assert not (tmp_path / "merges.txt").exists()
    said = tool("vocab", "--input", formatted_text, "--output", tmp_path, "--kind", "byte_bpe", "--vocab_size", 200)
    assert (said.code, "wanted 261 or more for --kind byte_bpe" in said.err) == (2, True)
    said = tool(*command, "--vocab_kind", "byte_bpe")
    assert (said.code, "--kind" in said.err) == (2, True)


@pytest.mark.parametrize("num_bytes", range(20, 28))
def test_a_document_longer_than_the_sample_is_cut_between_characters(num_bytes: int, tmp_path: Path) -> None:
    text = "\u00e9\u20ac\U0001f600" * 1000  # of 2, 3 and 4 bytes
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    ((line,),) = read_documents(sample_documents(find_documents([tmp_path / "one.txt"]), num_bytes, seed=0))
    assert text.startswith(line)
    assert num_bytes - 3 <= len(line.encode()) <= num_bytes


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_a_set_of_byte_bpe_is_padded_masked_whole_and_sound(
    masking: str, tool: Tool, formatted_text: Path, tmp_path: Path
) -> None:
    vocab, out = tmp_path / "v", tmp_path / "e"
    assert (
        tool("vocab", "--input", formatted_text, "--output", vocab, "--kind", "byte_bpe", "--vocab_size", 700).code == 0
    )
    options = ("--masking", masking, "--whole_word_masking", "--max_seq_len", 64, "--processes", 1)
    assert tool("encode", "--input", formatted_text, "--output", out, "--vocab_file", vocab, *options).code == 0
    said = tool("verify", "--input", out)
    assert said.code == 0, said.err
    shards = open_shards(next(out.iterdir()))
    assert shards.vocabulary == load_tokenizer(vocab).vocabulary
    rows = shards.rows(np.arange(shards.num_sequences))
    columns = np.arange(64)
    assert (rows.input_ids[columns >= rows.lengths[:, None]] == 1).all()
    if rows.static_masks is None:
        return
    row, slot = np.nonzero(np.arange(rows.static_masks.positions.shape[1]) < rows.static_masks.counts[:, None])
    chosen, ids = np.zeros(rows.input_ids.shape, bool), rows.input_ids.copy()
    where = row, rows.static_masks.positions[row, slot]
    chosen[where], ids[where] = True, rows.static_masks.token_ids[row, slot]
    joins = continues_word(shards.vocabulary)[ids]
    joins[:, 1:] &= ~np.isin(ids[:, :-1], shards.vocabulary.structural_ids)
    whole = np.diff(chosen, axis=1)[joins[:, 1:]] == 0
    assert whole.all()


def byte_bpe_rows(vocabulary: Vocabulary, padding: int) -> SequenceRows:
    ids = np.full((2, 12), padding, np.int32)
    for row, text in zip(ids, ("the king", "the"), strict=True):
        words = Tokenizer(vocabulary).encode_flat([text]).ids
        row[: len(words) + 2] = [vocabulary.cls_id, *words, vocabulary.sep_id]
    lengths = np.array([1 + int(np.flatnonzero(row == vocabulary.sep_id)[0]) for row in ids], np.int32)
    return SequenceRows(ids, lengths, lengths.copy(), None, None)


def test_rows_of_byte_bpe_are_checked_with_its_own_tokens(tool: Tool, tmp_path: Path) -> None:
    vocabulary = small_byte_bpe()
    for name, padding in (("sound", vocabulary.pad_id), ("zeros", 0)):
        rows = byte_bpe_rows(vocabulary, padding)
        attributes = {"vocabulary_sha256": vocabulary_sha256(vocabulary), "lowercase": False}
        write_shard(tmp_path / name / "train_0.hdf5", rows, attributes, "none")
        Tokenizer(vocabulary).save(tmp_path / name)
    assert tool("verify", "--input", tmp_path / "sound").code == 0
    assert "something stands in the padding" in tool("verify", "--input", tmp_path / "zeros").err
    shards = open_shards(tmp_path / "sound")
    assert shards.vocabulary == vocabulary
    assert "266 cased byte-level BPE tokens" in shards.describe()
    words = rows.lengths.sum() - 4
    assert np.exp(unigram_entropy(shards)) < words  # `<s>` and `</s>` do not count
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "sound" / name).unlink()
    assert open_shards(tmp_path / "sound").vocabulary == vocabulary  # from RoBERTa's files alone


def test_an_extended_vocabulary_keeps_every_id_and_adds_words_of_the_text(
    tool: Tool, formatted_text: Path, tmp_path: Path
) -> None:
    base = small_vocabulary()
    Tokenizer(base).save(tmp_path / "model")
    out = tmp_path / "vocab"
    command = ("vocab", "--input", formatted_text, "--extend", tmp_path / "model", "--output", out)
    assert tool(*command, "--vocab_size", 400).code == 0
    extended = load_tokenizer(out).vocabulary
    assert extends(extended, base)
    assert len(set(extended.tokens)) == len(extended.tokens) == 400
    text = " ".join(line for line in next(formatted_text.glob("*.txt")).read_text().splitlines() if line)
    assert len(Tokenizer(extended).encode_flat([text]).ids) < 0.8 * len(Tokenizer(base).encode_flat([text]).ids)
    before = contents(out)
    assert tool(*command, "--vocab_size", 400).code == 0
    assert contents(out) == before
    assert tool(*command, "--vocab_size", 401).code == 1


def test_a_vocabulary_that_cannot_be_extended_says_why(tool: Tool, formatted_text: Path, tmp_path: Path) -> None:
    Tokenizer(small_vocabulary()).save(tmp_path / "small")
    Tokenizer(small_byte_bpe()).save(tmp_path / "bpe")
    for words, code, told in (
        (("--extend", tmp_path / "small", "--vocab_size", 60), 1, "--vocab_size asks for 60 in all. Ask for more"),
        (("--extend", tmp_path / "bpe"), 1, "byte-level BPE; --extend takes WordPiece"),
        (("--extend", tmp_path / "small", "--kind", "byte_bpe"), 2, "--extend is for --kind wordpiece"),
        (("--extend", tmp_path / "none"), 1, "no such vocabulary"),
    ):
        said = tool("vocab", "--input", formatted_text, "--output", tmp_path / "out", *words)
        assert (said.code, told in said.err) == (code, True), said.err
