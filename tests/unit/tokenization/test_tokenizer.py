"""The tokenizer equals transformers' on real text, and its files open there."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary
from bert_pytorch.tokenization.flat import BATCH_CHARACTERS
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_vocabulary
from bert_pytorch.vocabulary import read_vocabulary, vocabulary_sha256
from tests.support.data import real_texts, shared_data

AWKWARD = [
    "", " ", "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m", "\u4f60\u597d\u4e16\u754c",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd", "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "x" * 300, "...!!!", "\u2028\u00a0\u200b\ufeff", "a\u0000b\ufffd", "don't stop-it (now)", "\u0130stanbul \ufb01ne",
]  # fmt: skip
WORDS = Vocabulary((*SPECIAL_TOKENS, "the", "cat", "##s", "[", "]", "mask", "Cat"), lowercase=True)


def google_vocabulary() -> Path:
    return shared_data("vocab", "bert-base-uncased-vocab.txt")


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_equal_transformers_on_real_and_awkward_text(lowercase: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = [line for text in real_texts("inaugural", 6) + real_texts("movie_reviews", 40) for line in text.split("\n")]
    texts += [*AWKWARD, shared_data("wikitext-2", "valid.txt").read_text(encoding="utf-8")[:200_000]]
    tokenizer = load_tokenizer(google_vocabulary(), lowercase)
    ids, offsets = tokenizer.encode_flat(texts)
    reference = transformers.BertTokenizerFast(vocab=str(google_vocabulary()), do_lower_case=lowercase)
    reference.encode_special_tokens = True
    expected = reference(texts, add_special_tokens=False)["input_ids"]
    assert [ids[start:stop].tolist() for start, stop in itertools.pairwise(offsets)] == expected
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("lowercase", [True, False])
def test_saved_tokenizers_open_in_transformers_with_the_same_casing(lowercase: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer(google_vocabulary(), lowercase)
    tokenizer.save(tmp_path)
    text = "The CAPITAL of Fran\u00e7e is [MASK]."
    expected = tokenizer.encode_with_masks(text)
    for kind in (transformers.AutoTokenizer, transformers.BertTokenizerFast):
        opened = kind.from_pretrained(tmp_path)
        assert opened(text)["input_ids"] == expected
        assert opened.mask_token_id == 103
    file_only = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert file_only(text)["input_ids"] == expected
    assert (tmp_path / "vocab.txt").read_bytes() == google_vocabulary().read_bytes()


def test_the_vocabularys_sha256_is_that_of_googles_file() -> None:
    published = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert load_tokenizer(google_vocabulary()).sha256 == published


def test_special_tokens_in_a_corpus_are_prose_and_in_a_prompt_they_are_tokens() -> None:
    tokenizer = tokenizer_from_vocabulary(WORDS)
    assert tokenizer.encode_flat(["the [MASK] cats"]).ids.tolist() == [5, 8, 10, 9, 6, 7]
    assert tokenizer.encode_with_masks("the [MASK] cats") == [2, 5, 4, 6, 7, 3]
    assert tokenizer.encode_flat(["[MASK]"]).ids.tolist() == [8, 10, 9]


def test_texts_of_every_size_are_kept_apart() -> None:
    tokenizer = tokenizer_from_vocabulary(WORDS)
    texts = ["", "cat " * (BATCH_CHARACTERS // 2), "", "the", "", *["cats"] * (BATCH_CHARACTERS // 8), ""]
    counts = np.diff(tokenizer.encode_flat(texts).offsets).tolist()
    assert counts == [0, BATCH_CHARACTERS // 2, 0, 1, 0, *[2] * (BATCH_CHARACTERS // 8), 0]
    assert tokenizer.encode_flat([]).offsets.tolist() == [0]


@pytest.mark.parametrize("fast", [None, False])
def test_surrogates_count_as_what_a_lenient_decoder_makes_of_them(fast: bool | None) -> None:
    tokenizer = Tokenizer(WORDS._replace(tokens=(*WORDS.tokens, "\U0001f600")), fast)
    texts = ["the\ud800cat", "the \ud83d\ude00", "the\ufffdcat", "the \U0001f600", "cat"]
    ids, offsets = tokenizer.encode_flat(texts)
    found = [ids[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]
    assert found[:2] == found[2:4] == [[1], [5, 12]]


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_tokenizer_survives_saving_and_loading(lowercase: bool, tmp_path: Path) -> None:
    tokenizer = tokenizer_from_vocabulary(WORDS._replace(lowercase=lowercase))
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "vocab.txt", tmp_path / "tokenizer.json"):
        assert load_tokenizer(path).vocabulary == tokenizer.vocabulary
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).vocabulary == tokenizer.vocabulary


def test_a_vocabulary_of_odd_lines_is_read_token_by_token(tmp_path: Path) -> None:
    tokens = (*SPECIAL_TOKENS, "\u2028", "\u0085", "a\u00a0b", "x")
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join(tokens).encode())
    assert read_vocabulary(path).tokens == tokens
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    assert read_vocabulary(path).tokens == tokens
    assert vocabulary_sha256(read_vocabulary(path)) == vocabulary_sha256(Vocabulary(tokens, True))


def test_casing_that_contradicts_a_tokenizer_file_is_refused(tmp_path: Path) -> None:
    tokenizer_from_vocabulary(WORDS).save(tmp_path)
    with pytest.raises(InputError, match="--no-lowercase was given"):
        load_tokenizer(tmp_path, lowercase=False)
    assert load_tokenizer(tmp_path / "vocab.txt", lowercase=False).vocabulary.lowercase is False


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", b"[PAD]\n[UNK]\nthe\n", r"\[CLS\] \[SEP\] \[MASK\] not among them"),
        ("vocab.txt", b"the\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "id 0 is 'the'"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\ncat\n", "'cat' stands twice"),
        ("vocab.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("vocab.txt", b"", "not among them"),
        ("tokenizer.json", b"{", "not a tokenizer file"),
        ("tokenizer.json", b"[]", "not a tokenizer file"),
        ("tokenizer.json", json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}}).encode(), "pre-tokenizer None"),
        ("tokenizer.json", json.dumps({"model": {"type": "WordPiece", "vocab": {"a": 5}}}).encode(), "the ids of its"),
    ],
)
def test_a_bad_vocabulary_gets_a_message(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_vocabulary(tmp_path / name)


def test_a_normalizer_that_casing_cannot_describe_is_refused(tmp_path: Path) -> None:
    tokenizer_from_vocabulary(WORDS).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"]["strip_accents"] = False
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="strip_accents False"):
        load_tokenizer(path)
    content["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="normalizer is not BERT's"):
        load_tokenizer(path)


def test_missing_vocabularies_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such vocabulary"):
        load_tokenizer(tmp_path / "vocab.txt")


def test_the_fingerprint_tells_casings_of_one_vocabulary_apart() -> None:
    cased = WORDS._replace(lowercase=False)
    assert Tokenizer(WORDS).sha256 == Tokenizer(cased).sha256
    assert Tokenizer(WORDS).fingerprint != Tokenizer(cased).fingerprint
    assert Tokenizer(WORDS).fingerprint == Tokenizer(WORDS).fingerprint
