"""Vocabularies on disk: `vocab.txt`, `tokenizer.json`, and RoBERTa's `vocab.json` with `merges.txt`.

Level 1 of the house: `tokenization` makes tokenizers from a `Vocabulary`, `shards` compares one with the ids it reads;
neither needs the other for that.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.records import BYTE_BPE_SPECIALS, WORDPIECE_SPECIALS, Vocabulary

VOCABULARY_TEXT, TOKENIZER_JSON = "vocab.txt", "tokenizer.json"
VOCABULARY_JSON, MERGES_TEXT = "vocab.json", "merges.txt"
VOCABULARY_FILES = (TOKENIZER_JSON, VOCABULARY_TEXT, VOCABULARY_JSON)
"""Files that a folder's vocabulary is read from, the first one found."""

CONTINUATION, WORD_START = "##", "\u0120"
"""What begins a WordPiece inside a word; what a space is in byte-level BPE, where it begins most words."""

_MERGES_HEADER = "#version: 0.2"
_UNWRITABLE = re.compile("[\n\r\ud800-\udfff]")


def vocabulary_text(vocabulary: Vocabulary) -> str:
    """Return the content of `vocab.txt`: a token a line, in the order of ids."""
    return "".join(f"{token}\n" for token in vocabulary.tokens)


def merge_lines(vocabulary: Vocabulary) -> list[str]:
    """Return the merges of a byte-level BPE vocabulary by rank, each as two tokens with a space between them."""
    return [f"{left} {right}" for left, right in vocabulary.merges or ()]


def merges_text(vocabulary: Vocabulary) -> str:
    """Return the content of `merges.txt`."""
    return "".join(f"{line}\n" for line in [_MERGES_HEADER, *merge_lines(vocabulary)])


def vocabulary_sha256(vocabulary: Vocabulary) -> str:
    """Return a vocabulary's SHA-256 in hexadecimal; casing is not in it, as in the published files.

    WordPiece: of `vocab.txt`.  Byte-level BPE: of `vocab.txt`, `merges.txt` and `add_prefix_space`, one after another.
    """
    text = vocabulary_text(vocabulary)
    if vocabulary.merges is not None:
        text += f"{merges_text(vocabulary)}add_prefix_space {str(vocabulary.add_prefix_space).lower()}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def extends(longer: Vocabulary, shorter: Vocabulary) -> bool:
    """Whether every id of `shorter` means the same in `longer`, which may have tokens (and merges) behind them."""
    merges, first = longer.merges, shorter.merges
    same_kind = (merges is None) == (first is None)
    same_spelling = (longer.lowercase, longer.add_prefix_space) == (shorter.lowercase, shorter.add_prefix_space)
    if not same_kind or not same_spelling or longer.tokens[: len(shorter.tokens)] != shorter.tokens:
        return False
    return merges is None or first is None or merges[: len(first)] == first


def continues_word(vocabulary: Vocabulary) -> np.ndarray:
    """Tell which tokens go on with the word of the token before them: bool (V,), False for special ones.

    WordPiece: pieces that begin with `##` (google-research/bert's whole-word masking).  Byte-level BPE: tokens without
    a space before them, so that punctuation belongs to the word it follows.
    """
    if vocabulary.merges is None:
        return np.array([token.startswith(CONTINUATION) for token in vocabulary.tokens], bool)
    return np.array(
        [not token.startswith(WORD_START) and token not in vocabulary.special for token in vocabulary.tokens], bool
    )


def byte_alphabet() -> tuple[str, ...]:
    """Return the character that stands for each byte in byte-level BPE (Radford et al. 2019), sorted by character."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # these stand for themselves
    return tuple(map(chr, [*printable, *range(256, 512 - len(printable))]))


def parse_merges(merges: Iterable[Any], tokens: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Read merges, each `"left right"` or a pair, and check that they build tokens from tokens.

    Raises:
        ValueError: naming the first that does not.
    """
    known = set(tokens)
    parsed = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(parts, list | tuple) and len(parts) == 2 and all(isinstance(part, str) for part in parts)):
            raise ValueError(f"the merge {str(merge)[:40]!r} is not two tokens")
        left, right = parts
        if not {left, right, left + right} <= known:
            raise ValueError(f"the merge {merge!r} joins or makes what is no token")
        parsed.append((left, right))
    return tuple(parsed)


def read_vocabulary(path: Path, lowercase: bool | None = None, *, otherwise: bool = True) -> Vocabulary:
    """Read a vocabulary from a folder (`tokenizer.json`, else `vocab.txt`, else `vocab.json`), or from one such file.

    Byte-level BPE without a `tokenizer.json` needs `merges.txt` beside the tokens.

    Args:
        path: the folder or file.
        lowercase: casing, where the person said it. `tokenizer.json` knows its own; other files do not, and for them
            this counts more than a `tokenizer_config.json` beside them.
        otherwise: casing of WordPiece where neither the person nor a file says it; byte-level BPE then keeps capitals.

    Raises:
        InputError: if there is none, it is damaged, `lowercase` contradicts it, or a `Vocabulary` cannot describe it.
    """
    if path.is_dir():
        found = next((path / name for name in VOCABULARY_FILES if (path / name).is_file()), None)
        if found is None:
            raise InputError(
                f"{path}: found neither {TOKENIZER_JSON} nor {VOCABULARY_TEXT} in this folder. Name a folder that has "
                "one, or make one: python -m bert_pytorch.corpus vocab --input FORMATTED --output DIR"
            )
        path = found
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such vocabulary. Name a {VOCABULARY_TEXT}, a {TOKENIZER_JSON}, or a folder with one."
        )
    if path.suffix != ".json":
        return _from_tokens(path, _lines(path), lowercase, otherwise)
    try:
        content = json.loads(_text(path))
        if isinstance(content.get("model"), dict):
            return _from_tokenizer_json(path, content, lowercase)
        if content and all(type(index) is int for index in content.values()):
            return _from_tokens(path, _in_order(path, content), lowercase, otherwise)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(f'{path}: it is not a tokenizer file: found no "model" with a "vocab". Mend or remake it.')


def _from_tokens(path: Path, tokens: list[str], lowercase: bool | None, otherwise: bool) -> Vocabulary:
    """Take what a list of tokens does not tell from the files beside it."""
    config = _config_beside(path)
    if not set(BYTE_BPE_SPECIALS) <= set(tokens) or set(WORDPIECE_SPECIALS) <= set(tokens):
        lowercase = bool(config.get("do_lower_case", otherwise)) if lowercase is None else lowercase
        return _checked(path, Vocabulary(tuple(tokens), lowercase))
    beside = path.parent / MERGES_TEXT
    if not beside.is_file():
        raise InputError(
            f"{path}: its special tokens are byte-level BPE's, whose merges are in {MERGES_TEXT} beside it, but there "
            f"is none. Name a {TOKENIZER_JSON}, or put {MERGES_TEXT} there."
        )
    lines = _lines(beside)
    merges = _merges(beside, lines[1:] if lines and lines[0].startswith("#version") else lines, tokens)
    lowercase = bool(config.get("do_lower_case", False)) if lowercase is None else lowercase
    return _checked(path, Vocabulary(tuple(tokens), lowercase, merges, bool(config.get("add_prefix_space", False))))


def _from_tokenizer_json(path: Path, content: dict[str, Any], lowercase: bool | None) -> Vocabulary:
    model = content["model"]
    kind = model.get("type", "BPE" if "merges" in model else "WordPiece")
    if kind not in ("WordPiece", "BPE"):
        raise InputError(
            f"{path}: found a {kind} tokenizer; wanted WordPiece or byte-level BPE. Name another vocabulary."
        )
    added = {str(token["content"]): token["id"] for token in content.get("added_tokens") or []}
    tokens = _in_order(path, {**model["vocab"], **added})
    if kind == "WordPiece":
        vocabulary = Vocabulary(tuple(tokens), _wordpiece_casing(path, content.get("normalizer") or {}))
    else:
        own = _byte_bpe_casing(path, content, [token for token in added if token not in BYTE_BPE_SPECIALS])
        prefix = bool(content["pre_tokenizer"].get("add_prefix_space", True))
        vocabulary = Vocabulary(tuple(tokens), own, _merges(path, model["merges"], tokens), prefix)
    if lowercase is not None and lowercase != vocabulary.lowercase:
        flag = "--lowercase" if lowercase else "--no-lowercase"
        does = "lower-cases" if vocabulary.lowercase else "keeps capitals"
        raise InputError(f"{path}: it {does}, but {flag} was given. Leave the flag out, or name another vocabulary.")
    return _checked(path, vocabulary)


def _wordpiece_casing(path: Path, normalizer: dict[str, Any]) -> bool:
    """Read the casing, and refuse a normalizer that a list of tokens and a casing cannot describe."""
    parts = normalizer.get("normalizers", [normalizer])
    bert = next((part for part in parts if part.get("type") == "BertNormalizer"), None)
    if bert is None or len(parts) > 1:
        raise InputError(f"{path}: its normalizer is not BERT's, so its ids cannot be reproduced here. Name another.")
    lowercase = bool(bert.get("lowercase", True))
    strip = bert.get("strip_accents")
    usual = bert.get("clean_text", True) and bert.get("handle_chinese_chars", True) and strip in (None, lowercase)
    if not usual:
        raise InputError(
            f"{path}: its normalizer has clean_text {bert.get('clean_text')}, handle_chinese_chars "
            f"{bert.get('handle_chinese_chars')}, strip_accents {strip}; wanted true, true, and null or the same as "
            "lowercase. Name another vocabulary."
        )
    return lowercase


def _byte_bpe_casing(path: Path, content: dict[str, Any], other_added: list[str]) -> bool:
    """Read the casing, and refuse by name what tokens, merges, casing and a prefix space cannot describe."""
    normalizer, pre_tokenizer = content.get("normalizer") or {"normalizers": []}, content.get("pre_tokenizer") or {}
    steps = [part.get("type") for part in normalizer.get("normalizers", [normalizer])]
    model = content["model"]
    unusual = [f"the normalizer {step} (wanted none, or Lowercase)" for step in steps if step != "Lowercase"]
    if pre_tokenizer.get("type") != "ByteLevel":
        unusual.append(f"the pre-tokenizer {pre_tokenizer.get('type')} (wanted ByteLevel)")
    elif not pre_tokenizer.get("use_regex", True):
        unusual.append("a ByteLevel pre-tokenizer that does not split words (use_regex false)")
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    unusual += [f"{option} {model[option]!r}" for option in options if model.get(option)]
    unusual += [f"the added token {token!r}" for token in other_added[:3]]
    if unusual:
        raise InputError(
            f"{path}: it has {'; '.join(unusual)}: its ids cannot be reproduced here. Name a byte-level BPE vocabulary "
            "such as RoBERTa's."
        )
    return bool(steps)


def _merges(path: Path, merges: Iterable[Any], tokens: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        return parse_merges(merges, tokens)
    except ValueError as error:
        raise InputError(f"{path}: {error} of this vocabulary. Mend or remake it.") from None


def _in_order(path: Path, ids: dict[str, int]) -> list[str]:
    if sorted(ids.values()) != list(range(len(ids))):
        raise InputError(f"{path}: the ids of its tokens are not 0 to {len(ids) - 1}, each once. Remake the file.")
    return sorted(ids, key=ids.__getitem__)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text; wanted a {VOCABULARY_TEXT} or {TOKENIZER_JSON}.") from None


def _lines(path: Path) -> list[str]:
    # Not splitlines: U+2028 and others are tokens.
    lines = [line.removesuffix("\r") for line in _text(path).split("\n")]
    return lines[:-1] if not lines[-1] else lines


def _config_beside(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _checked(path: Path, vocabulary: Vocabulary) -> Vocabulary:
    tokens, special = vocabulary.tokens, vocabulary.special
    missing = [token for token in special if token not in tokens]
    if missing:
        raise InputError(
            f"{path}: {len(tokens)} tokens, {' '.join(missing)} not among them; BERT needs it. "
            "Is this a WordPiece vocabulary, or RoBERTa's?"
        )
    if len(set(tokens)) != len(tokens):
        repeated = Counter(tokens).most_common(1)[0][0]
        raise InputError(f"{path}: the token {repeated!r} stands twice. Remove one of its lines.")
    broken = next((token for token in tokens if _UNWRITABLE.search(token)), None)
    if broken is not None:
        raise InputError(
            f"{path}: the token {broken!r} has a line break or half a character in it, which "
            f"{VOCABULARY_TEXT} could not hold. Name another vocabulary."
        )
    if vocabulary.merges is None and tokens[0] != special.pad:
        raise InputError(f"{path}: id 0 is {tokens[0]!r}, wanted {special.pad}: rows of shards are padded with 0.")
    lost = set(byte_alphabet()) - set(tokens) if vocabulary.merges is not None else set()
    if lost:
        raise InputError(
            f"{path}: {len(lost)} of the 256 bytes have no token (such as {min(lost)!r}): text would be lost. Remake "
            "it with all of them: python -m bert_pytorch.corpus vocab --kind byte_bpe"
        )
    return vocabulary
