"""On which code points do `tokie` and `tokenizers` agree?  Compared bare, past the package's own guards.

    python -m tests.support.code_points     writes bert_pytorch/tokenization/proven_code_points.json; about two minutes

A code point is put into contexts that show all that an encoder can know of it: what it is normalised to and whether it
is a word, part of one, punctuation or space.  The probing vocabularies hide nothing: WordPiece's has a token for every
character, alone and within a word; BPE's has a merge across each border that the pre-tokenizer may draw.
"""

import importlib.metadata
import itertools
import json
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary
from bert_pytorch.tokenization import proven
from bert_pytorch.tokenization.flat import FlatTokens, encode_flat_reference
from bert_pytorch.tokenization.tokenizer import normalizer, tokenizer_from_vocabulary

KINDS = ("wordpiece_lowercase", "wordpiece_cased", "bpe")
WORDPIECE_CONTEXTS = "{c} a{c}b {c}{c} \u00e9{c}z \u4e2d{c}\u4e2d {c}\u0301x x\u0301{c} .{c}. A{c}\u03a3 {c}"
ASCII_CONTEXTS = "{c} a{c}b {c}{c} .{c}. A{c}Z {c}"
BPE_CONTEXTS = "a{c}a 1{c}1 !{c}! {c}a {c}1 {c}! a {c}\n{c}{c} \n{c}  {c} \u00a0{c}\u00e9{c}\u00b2{c}"
BPE_NEIGHBOURS = "a1! \n\u00e9\u00b2\u00a0"

Encode = Callable[[Sequence[str]], FlatTokens]


def assigned() -> np.ndarray:
    """Return the code points that this Python's Unicode knows as characters, without private use; int64 (n,)."""
    return np.array([c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")])


def agreeing(kind: str, code_points: np.ndarray) -> np.ndarray:
    """Return on which of some code points both libraries give the same ids in every context: bool (n,)."""
    characters = list(map(chr, code_points.tolist()))
    fast, reference = _probing_bpe() if kind == "bpe" else _probing_wordpiece(characters, kind == "wordpiece_lowercase")
    equal = _same(fast, reference, characters)
    for contexts in (BPE_CONTEXTS,) if kind == "bpe" else (WORDPIECE_CONTEXTS, ASCII_CONTEXTS):
        equal &= _same(fast, reference, [contexts.format(c=character) for character in characters])
    if kind == "wordpiece_lowercase":
        equal &= ~np.array([_is_reordered(character) for character in characters], bool)
    if kind == "bpe":
        equal &= ~np.isin(characters, list("\t\x0b\x0c"))
    return equal


def bare_tokie(backend: tokenizers.Tokenizer) -> Encode:
    """Load tokie with a tokenizer, special tokens left out."""
    import tokie

    content = {**json.loads(backend.to_str()), "added_tokens": [], "post_processor": None}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="ascii") as file:
        json.dump(content, file)
        file.flush()
        loaded = tokie.Tokenizer.from_json(file.name)

    def encode(texts: Sequence[str]) -> FlatTokens:
        ids, lengths = loaded.encode_batch_flat(texts, add_special_tokens=False)
        return FlatTokens(ids.view(np.int32), np.concatenate([[0], np.cumsum(lengths.view(np.int64))]))

    return encode


def probing_bpe(neighbours: str = BPE_NEIGHBOURS) -> tokenizers.Tokenizer:
    """Return the reference with a vocabulary that merges across each border beside some characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    beside = [level.pre_tokenize_str(character)[0][0] for character in neighbours]
    pairs = [(end[-1], byte) for end, byte in itertools.product(beside, alphabet)]
    pairs += [(byte, start[0]) for start, byte in itertools.product(beside, alphabet)]
    merges = [(left, right) for left, right in dict.fromkeys(pairs) if left != "'" or not right.isalpha()]
    if "'" in neighbours:
        merges = list(dict.fromkeys([*merges, *(("'", byte) for byte in alphabet if not byte.isascii())]))
    vocabulary = {token: index for index, token in enumerate([*alphabet, *map("".join, merges)])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return backend


def _probing_bpe() -> tuple[Encode, Encode]:
    backend = probing_bpe()
    return bare_tokie(backend), lambda texts: encode_flat_reference(backend, texts)


def _probing_wordpiece(characters: Sequence[str], lowercase: bool) -> tuple[Encode, Encode]:
    rule = normalizer(lowercase)
    shown = sorted({*characters, *rule.normalize_str("".join(characters) + WORDPIECE_CONTEXTS)})
    tokens = (*SPECIAL_TOKENS, *shown, *(f"##{character}" for character in shown))
    backend = tokenizer_from_vocabulary(Vocabulary(tokens, lowercase))._backend
    return bare_tokie(backend), lambda texts: encode_flat_reference(backend, texts)


def differing(found: FlatTokens, wanted: FlatTokens) -> np.ndarray:
    """Return which of n texts have other ids: bool (n,)."""
    counts, expected = np.diff(found.offsets), np.diff(wanted.offsets)
    if np.array_equal(counts, expected):
        sums = np.concatenate([[0], np.cumsum(found.ids != wanted.ids)])
        return np.diff(sums[wanted.offsets]) > 0
    return np.array(
        [
            not np.array_equal(found.ids[a:b], wanted.ids[c:d])
            for (a, b), (c, d) in zip(
                itertools.pairwise(found.offsets.tolist()), itertools.pairwise(wanted.offsets.tolist()), strict=True
            )
        ],
        bool,
    )


def _same(fast: Encode, reference: Encode, texts: Sequence[str]) -> np.ndarray:
    return ~differing(fast(texts), reference(texts))


def _is_reordered(character: str) -> bool:
    """Whether decomposition moves it and it stays in the text, so that what stands beside it matters."""
    return any(
        unicodedata.combining(c) and unicodedata.category(c) != "Mn" for c in unicodedata.normalize("NFD", character)
    )


def as_spans(code_points: np.ndarray) -> str:
    """Write ascending code points as spans in hexadecimal: `0-7e 80-377`."""
    runs = np.split(code_points, np.flatnonzero(np.diff(code_points) > 1) + 1)
    return " ".join(f"{run[0]:x}-{run[-1]:x}" if len(run) > 1 else f"{run[0]:x}" for run in runs)


def main() -> None:
    """Derive the proven code points and write them beside the code that reads them."""
    scanned = assigned()
    content: dict[str, object] = {
        "versions": {name: importlib.metadata.version(name) for name in ("tokie", "tokenizers")},
        "unicode": unicodedata.unidata_version,
    }
    for kind in KINDS:
        chosen = scanned[agreeing(kind, scanned)]
        content[kind] = as_spans(chosen)
        print(f"{kind}: {len(chosen):,} of {len(scanned):,} assigned code points agree")
    path = Path(proven.__file__).with_name(proven.FILE)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
