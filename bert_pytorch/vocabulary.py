"""Vocabularies on disk: `vocab.txt` (one token a line) and the part of `tokenizer.json` that a model depends on.

Level 1 of the house: `tokenization` makes tokenizers from a `Vocabulary`, `shards` compares one with the ids it reads;
neither needs the other for that.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from bert_pytorch.errors import InputError
from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary

VOCABULARY_TEXT, TOKENIZER_JSON = "vocab.txt", "tokenizer.json"


def vocabulary_text(vocabulary: Vocabulary) -> str:
    """Return the content of `vocab.txt`: a token a line, in the order of ids."""
    return "".join(f"{token}\n" for token in vocabulary.tokens)


def vocabulary_sha256(vocabulary: Vocabulary) -> str:
    """Return the SHA-256 of `vocab.txt` in hexadecimal; casing is not in it, as in the published files."""
    return hashlib.sha256(vocabulary_text(vocabulary).encode()).hexdigest()


def read_vocabulary(path: Path, lowercase: bool | None = None, *, otherwise: bool = True) -> Vocabulary:
    """Read a vocabulary from a folder (`tokenizer.json`, else `vocab.txt`), or from one such file.

    Args:
        path: the folder or file.
        lowercase: casing, where the person said it. `tokenizer.json` knows its own; a `vocab.txt` does not, and for it
            this counts more than a `tokenizer_config.json` beside it.
        otherwise: casing where neither the person nor a file says it.

    Raises:
        InputError: if there is none, it is damaged, or `lowercase` contradicts it.
    """
    if path.is_dir():
        found = next((path / name for name in (TOKENIZER_JSON, VOCABULARY_TEXT) if (path / name).is_file()), None)
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
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text; wanted a {VOCABULARY_TEXT} or {TOKENIZER_JSON}.") from None
    if path.suffix == ".json":
        return _read_json(path, text, lowercase)
    return _read_text(path, text, _casing_beside(path, otherwise) if lowercase is None else lowercase)


def _read_text(path: Path, text: str, lowercase: bool) -> Vocabulary:
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # not splitlines: U+2028 and others are tokens
    if lines and not lines[-1]:
        lines.pop()
    return _checked(path, lines, lowercase)


def _casing_beside(path: Path, otherwise: bool) -> bool:
    try:
        config = json.loads((path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(config.get("do_lower_case", otherwise))
    except (OSError, ValueError, AttributeError):
        return otherwise


def _read_json(path: Path, text: str, lowercase: bool | None) -> Vocabulary:
    try:
        content = json.loads(text)
        model, normalizer = content["model"], content.get("normalizer") or {}
        ids = dict(model["vocab"])
        kind = model.get("type", "WordPiece")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f'{path}: it is not a tokenizer file: found no "model" with a "vocab". Mend or remake it.'
        ) from None
    if kind != "WordPiece":
        raise InputError(f"{path}: found a {kind} tokenizer; this version reads WordPiece. Name another vocabulary.")
    ids |= {str(added["content"]): added["id"] for added in content.get("added_tokens", [])}
    tokens = [token for token, _ in sorted(ids.items(), key=lambda item: item[1])]
    if sorted(ids.values()) != list(range(len(tokens))):
        raise InputError(f"{path}: the ids of its tokens are not 0 to {len(tokens) - 1}, each once. Remake the file.")
    own = _casing_of(path, normalizer)
    if lowercase is not None and lowercase != own:
        flag = "--lowercase" if lowercase else "--no-lowercase"
        kind = "lower-cases" if own else "keeps capitals"
        raise InputError(f"{path}: it {kind}, but {flag} was given. Leave the flag out, or name another vocabulary.")
    return _checked(path, tokens, own)


def _casing_of(path: Path, normalizer: dict[str, Any]) -> bool:
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


def _checked(path: Path, tokens: list[str], lowercase: bool) -> Vocabulary:
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise InputError(
            f"{path}: {len(tokens)} tokens, {' '.join(missing)} not among them; BERT needs it. "
            "Is this a WordPiece vocabulary?"
        )
    if len(set(tokens)) != len(tokens):
        repeated = Counter(tokens).most_common(1)[0][0]
        raise InputError(f"{path}: the token {repeated!r} stands twice. Remove one of its lines.")
    if tokens[0] != SPECIAL_TOKENS[0]:
        raise InputError(
            f"{path}: id 0 is {tokens[0]!r}, wanted {SPECIAL_TOKENS[0]}: rows of shards are padded with 0."
        )
    return Vocabulary(tuple(tokens), lowercase)
