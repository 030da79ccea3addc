"""tokie's ids are those of `tokenizers`: on each code point, on texts made to break it, and on all real data."""

import bz2
import itertools
import logging
import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary
from bert_pytorch.tokenization import fast
from bert_pytorch.tokenization.fast import FastEncoder
from bert_pytorch.tokenization.flat import encode_flat_reference
from bert_pytorch.tokenization.proven import unproven_code_points
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.tokenization.training import train_wordpiece
from bert_pytorch.vocabulary import read_vocabulary
from tests.support import code_points
from tests.support.data import real_texts, shared_data

pytest.importorskip("tokie")

KINDS = code_points.KINDS
ODD = [
    "", " ", "\t", "\n", "\r\n", "\x00", "\x7f", "\x85", "\u00a0", "\u2028", "\u3000", "\u200b", "\u200d", "\ufeff",
    "\ufffd", "\u00ad", "\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0130", "\u00df", "\u0149",
    "\u03a3", "\u01c5", "\ufb01", "\u212b", "\u1e9b\u0323", "e\u0301\u0316", "q\u0307\u0323", "\U0001d15e",
    "\U0001d158\U0001d16d\U0001d165", "\u302e\u302f", "\u1b44\u302e", "\u1100\u1161\u11a8", "\uac01",
    "\u4e2d\u6587", "\uf900", "\U0002f800", "\U0002b820", "\u0e33", "\u0930\u094d", "\u05d0\u05b8", "\u0640\u0651",
    "\u2167", "\u24b6", "\u00b2", "\u066b", "\u2019", "\u201c", "\ud800", "\udfff", "\ud83d\ude00", "[MASK]", "##s",
    "<mask>", "'s", "'re", "'x", "'\u00e9", " '", "''", "don't", "a" * 99, "b" * 101, "\u00e9" * 100, "x" * 40,
    "\u0378", "\U000e0001", "\U0010ffff", "the", "The", "12", ".", "-", "  ",
]  # fmt: skip
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from(ODD), max_size=8).map("".join),
        st.lists(st.sampled_from(ODD), max_size=8).map(" ".join),
        st.text(alphabet="abT'1! \n\t\u00e9\u00b2\u00a0\u4e2d\u0301", max_size=90),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def encoders() -> dict[str, FastEncoder]:
    """Encoders of each kind, their vocabularies trained on real prose."""
    texts = [line for text in real_texts("inaugural", 30) for line in text.split("\n")]
    backends = {name: train_wordpiece([*texts, *_odd_texts()], 4000, lower)._backend for name, lower in _casings()}
    backends |= {name: _train_bpe([*texts, *_odd_texts()], prefix) for name, prefix in _prefixes()}
    return {name: _encoder(backend, name) for name, backend in backends.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_libraries_agree_on_the_proven_code_points(kind: str) -> None:
    proven = np.flatnonzero(~unproven_code_points(kind))
    assert len(proven) > 140_000  # of 144,762 assigned in Unicode 14
    chosen = proven[(proven < 0x3400) | ((proven > 0x9FFF) & (proven < 0xAC00)) | (proven % 16 == 0)]
    assert np.flatnonzero(~code_points.agreeing(kind, chosen)).tolist() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_libraries_agree_on_every_proven_code_point(kind: str) -> None:
    proven = np.flatnonzero(~unproven_code_points(kind))
    assert proven[~code_points.agreeing(kind, proven)].tolist() == []


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
def test_ids_are_those_of_the_reference(encoders: dict[str, FastEncoder], texts: list[str]) -> None:
    for encoder in encoders.values():
        _assert_same(encoder, texts)


def test_runs_of_all_kinds_of_characters_are_split_alike() -> None:
    """Every string of up to five characters, one of each kind that the BPE's pattern tells apart, and `'s`, `'é`."""
    encoder = _encoder(code_points.probing_bpe(code_points.BPE_NEIGHBOURS + "'"), "bpe")
    _assert_same(encoder, _strings("a\u00e91\u00b2 \n\u00a0!\u201c", 5))
    _assert_same(encoder, _strings("as\u00e91\u00b2 \n\u00a0!\u201c'", 4))


def _strings(alphabet: str, longest: int) -> list[str]:
    return ["".join(text) for n in range(1, longest + 1) for text in itertools.product(alphabet, repeat=n)]


def test_sequences_of_proven_characters_are_encoded_alike(encoders: dict[str, FastEncoder]) -> None:
    rng = random.Random(7)
    for name, encoder in encoders.items():
        proven = np.flatnonzero(~encoder._unproven)
        pools = [proven[proven < limit].tolist() for limit in (0x80, 0x250, 0x3000, 0x20000)]
        texts = ["".join(map(chr, rng.choices(pools[i % 4], k=rng.randrange(1, 100)))) for i in range(2000)]
        assert _assert_same(encoder, texts) < (0.2 if name.startswith("bpe") else 0.01) * len(texts)


def test_texts_of_every_length_are_encoded_alike(encoders: dict[str, FastEncoder]) -> None:
    words = " ".join(real_texts("state_union", 2))
    letters = "".join(character for character in words if character.isalpha())
    sizes = (31, 32, 33, 255, 256, 257, 2_499, 2_500, 9_999, 10_000, 16_383, 16_384, 65_535, 65_536, 70_001)
    texts = [text[:size] for size in sizes for text in (words, letters, "a" * size, "\u4e2d\u00e9" * size)]
    for encoder in encoders.values():
        _assert_same(encoder, texts)
    _assert_same(encoders["wordpiece lower"], ["a"] * 70_000 + ["", "\x7f\t", "b"])


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.sets(st.tuples(st.sampled_from(["", "##"]), st.text("ab\u00e9\u4e2d.", min_size=1, max_size=4))),
    texts=st.lists(st.text(alphabet="ab\u00e9\u4e2d. ", max_size=12), max_size=20),
)
def test_any_wordpiece_vocabulary_is_encoded_alike(tokens: set[tuple[str, str]], texts: list[str]) -> None:
    rests = {"##a"} | {f"##{token[0]}" for prefix, token in tokens if prefix}
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *sorted(rests | set(map("".join, tokens)))), lowercase=False)
    quick, slow = Tokenizer(vocabulary, fast=True), Tokenizer(vocabulary, fast=False)
    assert quick.encode_flat(texts).ids.tolist() == slow.encode_flat(texts).ids.tolist()


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(alphabet="aaabn'ste \u00e9\u4e2d1", max_size=80), min_size=1, max_size=20))
def test_any_bpe_vocabulary_is_encoded_alike(texts: list[str]) -> None:
    encoder = FastEncoder.from_tokenizer_json(_train_bpe(texts, False, 330).to_str(), "bpe")
    assume(encoder is not None)
    long = ["".join(texts).replace(" ", "") * 3, "".join(texts)[::-1]]
    _assert_same(encoder, [*texts, *long])


def test_a_vocabulary_that_tokie_misreads_goes_to_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "ab", "##cde"), lowercase=True)
    fast._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert Tokenizer(vocabulary).encode_flat(["abcd"]).ids.tolist() == [SPECIAL_TOKENS.index("[UNK]")]
    assert len([record for record in caplog.records if "single characters" in record.message]) == 1


@pytest.mark.parametrize(("name", "said"), [("tokie", "found tokie 9.9"), ("tokenizers", "found tokenizers 9.9")])
def test_other_versions_are_not_trusted(name: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    real = fast.importlib.metadata.version
    metadata = SimpleNamespace(
        version=lambda asked: "9.9" if asked == name else real(asked),
        PackageNotFoundError=fast.importlib.metadata.PackageNotFoundError,
    )
    monkeypatch.setattr(fast, "importlib", SimpleNamespace(metadata=metadata))
    fast._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        tokenizer = Tokenizer(Vocabulary((*SPECIAL_TOKENS, "a", "##a"), lowercase=True))
        assert tokenizer.encode_flat(["aa"]).ids.tolist() == [5, 6]
    assert said in caplog.text
    assert tokenizer._fast_encoder is None


@pytest.mark.slow
def test_all_real_data_is_encoded_alike(encoders: dict[str, FastEncoder]) -> None:
    google = read_vocabulary(shared_data("vocab", "bert-base-uncased-vocab.txt"), True)
    backend = Tokenizer(google)._backend
    encoders = {**encoders, "wordpiece lower": _encoder(backend, "wordpiece")}
    routed, num_lines = dict.fromkeys(encoders, 0), 0
    for lines in _real_data():
        num_lines += len(lines)
        for name, encoder in encoders.items():
            routed[name] += _assert_same(encoder, lines)
    assert max(routed[name] for name in routed if not name.startswith("bpe")) < 0.001 * num_lines, routed


def _real_data() -> Iterator[list[str]]:
    for path in sorted(shared_data().rglob("*")):
        if path.is_file():
            content = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
            yield content.decode("utf-8", "replace").split("\n")


def _assert_same(encoder: FastEncoder, texts: Sequence[str]) -> int:
    """Compare with the reference; return how many texts went there."""
    found, wanted = encoder.encode_flat(texts), encode_flat_reference(encoder._reference, texts)
    different = np.flatnonzero(code_points.differing(found, wanted))
    assert [texts[index] for index in different[:3]] == []
    assert (found.ids.dtype, found.offsets.dtype) == (np.int32, np.int64)
    assert np.array_equal(found.offsets, wanted.offsets)
    return int(encoder._unproven_texts(texts).sum())


def _casings() -> tuple[tuple[str, bool], ...]:
    return ("wordpiece lower", True), ("wordpiece cased", False)


def _prefixes() -> tuple[tuple[str, bool], ...]:
    return ("bpe", False), ("bpe with prefix", True)


def _odd_texts() -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in ODD for _ in range(2)]


def _train_bpe(texts: Sequence[str], prefix: bool, size: int = 4000) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return backend


def _encoder(backend: tokenizers.Tokenizer, name: str) -> FastEncoder:
    encoder = FastEncoder.from_tokenizer_json(backend.to_str(), "bpe" if name.startswith("bpe") else "wordpiece")
    assert encoder is not None
    return encoder
