"""Features: cut as BERT's authors cut, kept in a cache that knows what it was made from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.tasks import features as features_room
from bert_pytorch.tasks.features import Features, cached_features, sequence_features, truncated
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary
from tests.support.vocabularies import small_vocabulary

TOKENIZER = tokenizer_from_vocabulary(small_vocabulary())


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_pairs_are_cut_one_token_at_a_time_from_the_longer_one(first: int, second: int, room: int) -> None:
    a, b = first, second
    while a + b > room:
        if a > b:
            a -= 1
        else:
            b -= 1
    assert truncated(first, second, room) == (a, b)


def test_sequences_are_texts_between_special_tokens() -> None:
    made = sequence_features(TOKENIZER, ["the capital", "paris"], ["rome .", "a a a a a a a a"], 8, None)
    cls, sep = TOKENIZER.vocabulary.cls_id, TOKENIZER.vocabulary.sep_id
    the, capital, rome, dot, a, paris = (
        TOKENIZER.vocabulary.id_of(word) for word in ("the", "capital", "rome", ".", "a", "paris")
    )
    assert made.input_ids.tolist() == [cls, the, capital, sep, rome, dot, sep, cls, paris, sep, a, a, a, a, sep]
    assert made.cu_seqlens.tolist() == [0, 7, 15]
    assert made.segment_b_starts.tolist() == [4, 3]
    single = sequence_features(TOKENIZER, ["the capital of france", ""], None, 4, np.array([1, 0]))
    assert single.lengths.tolist() == single.segment_b_starts.tolist() == [4, 2]


def made(count: int = 3) -> Features:
    return sequence_features(TOKENIZER, ["the capital"] * count, None, 16, np.arange(count))._replace(
        extra={"places": np.arange(6)}
    )


def never() -> Features:
    raise AssertionError("it is in the cache")


def test_features_are_made_once_and_come_back_whole(tmp_path: Path) -> None:
    first = cached_features(tmp_path, {"file": "x"}, made)
    again = cached_features(tmp_path, {"file": "x"}, never)
    for one, other in zip(first[:5], again[:5], strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    assert np.array_equal(again.extra["places"], np.arange(6))
    other = cached_features(tmp_path, {"file": "y"}, lambda: made(2))
    assert len(other.examples) == 2
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "pickle", "another"])
def test_a_damaged_cache_is_made_anew(damage: str, tmp_path: Path) -> None:
    cached_features(tmp_path, {}, made)
    (path,) = tmp_path.glob("*.npz")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[content.index(np.int32(TOKENIZER.vocabulary.cls_id).tobytes(), 200) + 1] ^= 1
        path.write_bytes(content)
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "pickle":
        np.savez(path, input_ids=np.array([{"an": "object"}], dtype=object))
    else:
        cached_features(tmp_path, {"file": "z"}, lambda: made(5))
        other = next(file for file in tmp_path.glob("*.npz") if file != path)
        path.write_bytes(other.read_bytes())
    assert np.array_equal(cached_features(tmp_path, {}, made).labels, np.arange(3))
    cached_features(tmp_path, {}, never)


def test_the_cache_forgets_what_was_used_least_recently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        cached_features(tmp_path, {"file": name}, made)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.npz")) // 3
    cached_features(tmp_path, {"file": "a"}, never)
    monkeypatch.setattr(features_room, "CACHE_LIMIT_BYTES", 3 * size + size // 2)
    cached_features(tmp_path, {"file": "d"}, made)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    for name in "acd":
        cached_features(tmp_path, {"file": name}, never)


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(cached_features(blocked / "cache", {}, made).examples) == 3
