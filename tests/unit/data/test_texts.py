"""Text as a source: every token once and in order, tokenized once, by one process, into a bounded cache."""

import itertools
import logging
import multiprocessing
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.texts import token_set, tokenizing
from bert_pytorch.data.texts.config import TextConfig
from bert_pytorch.data.texts.cutting import cut_documents, token_dtype
from bert_pytorch.data.texts.reading import read_blocks
from bert_pytorch.data.texts.token_file import open_token_file, write_token_file
from bert_pytorch.data.texts.token_set import TokenSet, open_texts
from bert_pytorch.errors import InputError, WorkerError
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards import room
from bert_pytorch.tokenization.flat import FlatTokens
from bert_pytorch.vocabulary import vocabulary_text
from tests.support.text_tables import write_dataset, write_parquet
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

WORDS = small_vocabulary()
TEXTS = [
    "the capital of france is paris.",
    None,
    "",
    " \n\t",
    "Rome",
    "a " * 300,
    "你好 the 🎉",
    "is\u2028is",
    "x" * 250,
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own, in a process that has used nothing yet."""
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "_used", set())
    return tmp_path / "cache"


def opened(path: Path, longest: int = 16, vocabulary: Vocabulary = WORDS, **options: str) -> TokenSet:
    return open_texts(path, "train", TextConfig(max_seq_len=longest, **options), vocabulary)


def sequences(texts: TokenSet) -> list[list[int]]:
    rows = texts.rows(np.arange(texts.num_sequences))
    assert rows.input_ids.dtype == np.int32
    for ids, length in zip(rows.input_ids, rows.lengths, strict=True):
        assert (ids[length:] == WORDS.pad_id).all()
    return [ids[:length].tolist() for ids, length in zip(rows.input_ids, rows.lengths, strict=True)]


def ids_of_each(texts: list[str | None], folder: Path) -> list[list[int]]:
    """Tokenize document by document with Hugging Face's own BERT tokenizer."""
    (folder / "words.txt").write_text(vocabulary_text(WORDS))
    reference = tokenizers.BertWordPieceTokenizer(str(folder / "words.txt"), lowercase=True)
    return [reference.encode(text or "", add_special_tokens=False).ids for text in texts]


def expected(documents: list[list[int]], longest: int) -> list[list[int]]:
    """Cut as one would by hand: as few pieces as fit, the longer ones first."""
    found = []
    for ids in documents:
        pieces = -(-len(ids) // (longest - 2))
        for piece in np.array_split(ids, pieces) if pieces else []:
            found.append([WORDS.cls_id, *piece.tolist(), WORDS.sep_id])
    return found


@given(st.lists(st.integers(0, 70), max_size=40), st.integers(3, 30))
def test_cutting_loses_and_doubles_nothing_and_leaves_no_short_rest(counts: list[int], longest: int) -> None:
    ids = np.arange(5, 5 + sum(counts), dtype=np.int32)
    flat = FlatTokens(ids, np.cumsum([0, *counts], dtype=np.int64))
    tokens, lengths = cut_documents(flat, longest, WORDS)
    pieces = [piece.tolist() for piece in np.split(tokens, np.cumsum(lengths)[:-1])] if len(lengths) else []
    documents = [ids[end - count : end].tolist() for count, end in zip(counts, np.cumsum(counts), strict=True)]
    assert pieces == expected(documents, longest)


TEXT = st.none() | st.text(max_size=40) | st.text("the capital of é你🎉\0\n", min_size=30, max_size=300)


@settings(max_examples=30)
@given(texts=st.lists(TEXT, max_size=25), kind=st.sampled_from(["parquet", "dataset", "large"]))
def test_every_token_of_each_document_stands_once_and_in_order(
    texts: list[str | None], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("texts")
    if kind == "parquet":
        path = write_parquet(place / "a.parquet", texts)
    else:
        path = write_dataset(place / "a", texts, large=kind == "large")
    wanted = expected(ids_of_each(texts, place), 16)
    if wanted:
        assert sequences(opened(path)) == wanted
    else:
        with pytest.raises(InputError, match='no text in the column "text"'):
            opened(path)


def test_blocks_of_any_size_give_the_same_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, *(f"the {word} is " * number for number, word in enumerate(["rome", "é", "paris"] * 20))]
    write_parquet(tmp_path / "in" / "b.parquet", texts[:30])
    write_parquet(tmp_path / "in" / "deep" / "c.parquet", texts[30:], use_dictionary=False)
    wanted = expected(ids_of_each(texts, tmp_path), 16)
    monkeypatch.setattr("bert_pytorch.data.texts.reading.BLOCK_CHARACTERS", 50)
    monkeypatch.setattr("bert_pytorch.data.texts.token_file._LENGTHS_AT_ONCE", 3)
    blocks = list(read_blocks([tmp_path / "in" / "b.parquet"], "text"))
    assert len(blocks) > 10
    assert max(len(block.texts) for block in blocks) < 10
    assert sequences(opened(tmp_path / "in")) == wanted


def test_processes_give_what_one_gives_and_end_with_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"the {number} capital" * (number % 7) for number in range(200)]
    path = write_parquet(tmp_path / "a.parquet", texts)
    monkeypatch.setattr("bert_pytorch.data.texts.reading.BLOCK_CHARACTERS", 300)
    monkeypatch.setattr(tokenizing, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(tokenizing, "_num_cores", lambda: 2)
    assert sequences(opened(path)) == expected(ids_of_each(list(texts), tmp_path), 16)
    assert multiprocessing.active_children() == []

    blocks = tokenizing._in_processes(itertools.cycle(read_blocks([path], "text")), WORDS, 16, 2)
    next(blocks)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(WorkerError, match="a process that tokenizes text was killed"):
        list(itertools.islice(blocks, 10))
    assert multiprocessing.active_children() == []


def test_rows_are_gathered_in_any_order_as_wide_as_the_longest(tmp_path: Path) -> None:
    texts = opened(write_parquet(tmp_path / "a.parquet", TEXTS))
    everything = sequences(texts)
    assert texts.num_sequences == len(everything) == texts.shard_sizes.sum()
    assert texts.sequence_length == 16
    assert not texts.has_next_sentence
    assert not texts.static
    chosen = np.random.default_rng(0).integers(0, len(everything), 50)
    rows = texts.rows(chosen)
    assert rows.lengths.tolist() == texts.lengths(chosen).tolist() == [len(everything[index]) for index in chosen]
    assert rows.input_ids.shape == (50, rows.lengths.max())
    assert rows.segment_b_starts.tolist() == rows.lengths.tolist()
    for index, ids, length in zip(chosen, rows.input_ids, rows.lengths, strict=True):
        assert ids[:length].tolist() == everything[index]
    shortest = int(np.argmin([len(sequence) for sequence in everything]))
    assert texts.rows(np.array([shortest])).input_ids.tolist() == [everything[shortest]]
    assert texts.rows(np.zeros(0, np.int64)).input_ids.shape[0] == 0
    texts.close()
    assert sequences(texts) == everything
    for outside in (-1, len(everything)):
        with pytest.raises(IndexError):
            texts.rows(np.array([0, outside]))


def test_ids_take_two_bytes_and_four_only_where_they_must(tmp_path: Path) -> None:
    many = Vocabulary((*WORDS.tokens, *(f"w{n}" for n in range(1 << 16))), lowercase=True)
    path = write_parquet(tmp_path / "a.parquet", ["the w65000 is the", "w7"])
    for vocabulary, size in ((WORDS, 2), (many, 4)):
        texts = opened(path, vocabulary=vocabulary)
        assert token_dtype(vocabulary).itemsize == size
        wanted = [vocabulary.tokens.index(word) for word in ("[CLS]", "the", "[SEP]")]
        ids = texts.rows(np.array([0])).input_ids[0]
        assert [ids[0], ids[1], ids[-1]] == wanted
    assert ids[2] == many.tokens.index("w65000")
    tokens = sum(len(sequence) for sequence in sequences(texts))
    # header, tokens and a longest sequence more, at most 7 bytes to align, an offset a sequence and one more
    assert 0 <= texts.paths[0].stat().st_size - (64 + 4 * (tokens + 16) + 8 * 3) < 8


def test_byte_level_bpe_is_padded_with_its_own_id(tmp_path: Path) -> None:
    vocabulary = small_byte_bpe()
    texts = opened(write_parquet(tmp_path / "a.parquet", ["the king", "the king of the ring is é"]), 64, vocabulary)
    rows = texts.rows(np.arange(2))
    assert rows.input_ids[0, 0] == vocabulary.cls_id
    assert (rows.input_ids[0, rows.lengths[0] :] == vocabulary.pad_id).all()
    assert rows.lengths[0] < rows.lengths[1]


def test_a_second_start_tokenizes_nothing_and_whatever_decides_the_tokens_makes_other_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_parquet(tmp_path / "a.parquet", TEXTS)
    with caplog.at_level(logging.INFO):
        wanted = sequences(opened(path))
    assert "once ($BERT_PYTORCH_CACHE names another folder)" in caplog.text
    (made,) = folder.glob("*.tokens")
    before = made.stat().st_ino
    with monkeypatch.context() as patched:
        patched.setattr(token_set, "tokenize", None)
        patched.setattr(token_set, "total_bytes", None)
        assert sequences(opened(path)) == wanted
    assert [file.stat().st_ino for file in folder.glob("*.tokens")] == [before]

    opened(path, longest=17)
    opened(path, vocabulary=WORDS._replace(lowercase=False))
    opened(path, vocabulary=WORDS._replace(tokens=(*WORDS.tokens, "more")))
    assert len(list(folder.glob("*.tokens"))) == 4
    write_parquet(path, [*TEXTS, "the end"])
    assert len(sequences(opened(path))) == len(wanted) + 1


def test_the_least_recently_used_tokens_make_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_parquet(tmp_path / f"{n}.parquet", [f"the {n} capital " * 3000]) for n in range(3)]
    for age, path in enumerate(paths[:2]):
        made = opened(path).paths[0]
        os.utime(made, (1000 + age, 1000 + age))
    size = made.stat().st_size
    monkeypatch.setattr(room, "_used", set())  # as in another process
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(2.5 * size / 2**30))
    third = opened(paths[2])
    assert set(folder.glob("*.tokens")) == {made, third.paths[0]}
    assert len(list(folder.glob(".lock-" + "?" * 64))) == 2
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(0.1 * size / 2**30))
    opened(paths[0])
    assert third.paths[0].exists(), "what this process reads stays, whatever the limit"


def open_counted(path: Path, start: object, made: object) -> None:
    tokenize = token_set.tokenize

    def counted(*arguments: object) -> object:
        with made.get_lock():  # type: ignore[attr-defined]
            made.value += 1  # type: ignore[attr-defined]
        return tokenize(*arguments)  # type: ignore[arg-type]

    token_set.tokenize = counted  # type: ignore[assignment]
    start.wait(20)  # type: ignore[attr-defined]
    assert opened(path).num_sequences == 500


def test_processes_at_once_tokenize_once(folder: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["the capital of france is paris."] * 500, rows=100)
    context = multiprocessing.get_context("fork")
    start, made = context.Barrier(3), context.Value("i", 0)
    processes = [context.Process(target=open_counted, args=(path, start, made)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert made.value == 1
    assert len(list(folder.glob("*.tokens"))) == 1


def test_what_fails_leaves_no_file_of_tokens(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", TEXTS)

    def stopped(*_: object) -> object:
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(token_set, "tokenize", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened(path)
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".lock-")] == []
    assert opened(path).num_sequences


def test_a_damaged_file_of_tokens_is_named(tmp_path: Path) -> None:
    texts = opened(write_parquet(tmp_path / "a.parquet", TEXTS))
    path, whole = texts.paths[0], texts.paths[0].read_bytes()
    for content in (whole[:-8], whole[:40], b"", b"X" + whole[1:], whole[:32] + b"\xff" * 8 + whole[40:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"\.tokens: not a whole file of tokens\. Remove it"):
            open_token_file(path)
    for place, size in ((64, 2), (len(whole) - 16, 8)):  # the first token; an offset
        path.write_bytes(whole[:place] + b"\xff" * size + whole[place + size :])
        texts.close()
        with pytest.raises(InputError, match=r"\.tokens: not a whole file of tokens\. Remove it"):
            sequences(texts)


def test_memory_does_not_grow_with_the_number_of_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = cut_documents(FlatTokens(np.full(40_000, 9, np.int32), np.arange(0, 40_001, 4)), 16, WORDS)
    monkeypatch.setattr("bert_pytorch.data.texts.token_file._LENGTHS_AT_ONCE", 10_000)
    peaks = []
    tracemalloc.start()
    try:
        for count in (5, 100):
            tracemalloc.reset_peak()
            write_token_file(tmp_path / "t", itertools.repeat(block, count), token_dtype(WORDS), 16)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert open_token_file(tmp_path / "t").offsets[-1] == 100 * 60_000
    assert peaks[1] < peaks[0] + 500_000, "the million lengths alone are 2 MB, the tokens 12 MB"
