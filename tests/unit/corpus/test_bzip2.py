"""Ranges of a bzip2 file: together the whole content wherever it is cut, and damage told."""

import bz2
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus.inputs.bzip2 import read_range
from bert_pytorch.errors import InputError
from tests.support.data import shared_data

WORDS = "".join(random.Random(5).choices("abcdefghijklmnopqrstuvwxyz      <>", k=600_000)).encode()
EMPTY = bz2.compress(b"")
FILES = {
    "one stream": bz2.compress(WORDS, 1),
    "stream of large blocks": bz2.compress(WORDS, 9),
    "many streams": b"".join(bz2.compress(WORDS[start : start + 41_000]) for start in range(0, len(WORDS), 41_000)),
    "two streams of many blocks": bz2.compress(WORDS[:250_001], 1) + bz2.compress(WORDS[250_001:], 1),
    "tiny streams": b"".join(bz2.compress(WORDS[start : start + 50]) for start in range(0, 5000, 50)),
    "empty streams": EMPTY
    + bz2.compress(WORDS[:150_000], 1)
    + EMPTY
    + bz2.compress(WORDS[150_000:400_000])
    + EMPTY * 3,
    "very compressible": bz2.compress(bytes(5_000_000)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bzip2")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.floats(0, 1), max_size=6))
def test_ranges_are_the_whole_wherever_they_are_cut(folder: Path, name: str, places: list[float]) -> None:
    size = len(FILES[name])
    cuts = sorted([0, size, *(int(place * size) for place in places)])
    content, largest = b"", 0
    for start, end in itertools.pairwise(cuts):
        for piece in read_range(folder / name, start, end):
            content, largest = content + piece, max(largest, len(piece))
    assert content == bz2.decompress(FILES[name])
    assert largest <= 1 << 20


def test_every_cut_of_small_streams(tmp_path: Path) -> None:
    content = b"".join(bz2.compress(bytes([letter]) * 7) for letter in b"abc")
    (tmp_path / "x").write_bytes(content)
    for cut in range(len(content) + 1):
        parts = [b"".join(read_range(tmp_path / "x", *ends)) for ends in ((0, cut), (cut, len(content)))]
        assert b"".join(parts) == b"a" * 7 + b"b" * 7 + b"c" * 7


@pytest.mark.parametrize("name", ["one stream", "many streams"])
def test_damage_and_a_cut_are_told(tmp_path: Path, name: str) -> None:
    content = bytearray(FILES[name])
    content[len(content) // 2] ^= 0x10
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(InputError, match=r"damaged near byte \d+ .* Copy or download it again"):
        list(read_range(tmp_path / "damaged", 0, len(content)))
    (tmp_path / "cut").write_bytes(FILES[name][:-1000])
    with pytest.raises(InputError, match=r"cut off\? Copy or download it again"):
        list(read_range(tmp_path / "cut", 0, len(content)))
    for other in (b"", b"BZh9", b"something else"):
        (tmp_path / "other").write_bytes(other)
        with pytest.raises(InputError, match="not a bzip2 file"):
            list(read_range(tmp_path / "other", 0, 100))


def test_no_damage_loses_text_silently(tmp_path: Path) -> None:
    text = shared_data("wikitext-2", "valid.txt").read_bytes()[:100_000]
    parts = [text[start : start + 20_000] for start in range(0, len(text), 20_000)]
    streams = [bz2.compress(part, 1) for part in parts]
    heads = [sum(map(len, streams[:index])) for index in range(len(streams))]
    path, whole = tmp_path / "damaged.bz2", b"".join(streams)
    chance = random.Random(7)
    told = 0
    for flip in range(300):
        place = chance.choice(heads) + chance.randrange(30) if flip % 2 else chance.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            found = b"".join(read_range(path, 0, len(whole)))
        except InputError:
            told += 1
        else:
            assert found == text, f"bit flip in byte {place} lost text"
    assert told > 200
