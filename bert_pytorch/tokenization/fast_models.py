"""What `tokie` is given of a `tokenizer.json`, and which vocabularies it is not to be trusted with.

Found by comparison with `tokenizers` and by reading tokie 0.1.4:
WordPiece: a rest that begins some `##` token but holds none itself is dropped instead of making the word [UNK].
BPE: a piece that is a token is never split, whatever the merges say; `'` before a letter joins it to one piece.
Both: texts from a certain length on are cut into parts, at places where the parts are not independent.
"""

import platform
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import pre_tokenizers

from bert_pytorch.records import UNKNOWN_TOKEN

_LONGEST_TEXT = (1 << 16) - 2  # a space may be put before it
_LONGEST_BPE_PIECE = 9_998
_CONTRACTIONS = {"'s", "'t", "'m", "'d", "'re", "'ve", "'ll"}


class UnusableError(Exception):
    """Why tokie is not used; the reference is."""


class TokieModel(NamedTuple):
    """A model in the form in which tokie equals `tokenizers`."""

    json_content: dict[str, Any]
    """What tokie loads; no added tokens, so that their names are ordinary text."""
    proof: str
    """Which proven set of code points holds."""
    longest_text: int = _LONGEST_TEXT
    """Bytes of UTF-8."""
    longest_piece: int = _LONGEST_TEXT
    """Bytes of a piece, which is a run of whitespace, or part of a run without any and a space before it."""
    ids: np.ndarray | None = None
    """int32 (V,), the vocabulary's id of each of tokie's; None where they are the same."""
    prefix_space: bool = False
    """Whether a space goes before a text that has none."""
    apostrophes_are_odd: bool = False
    """Whether an apostrophe before a character outside ASCII needs the reference."""


def wordpiece_model(content: dict[str, Any]) -> TokieModel:
    """Check a WordPiece `tokenizer.json` and reduce it to what tokie needs.

    Raises:
        UnusableError: if tokie might encode otherwise with this vocabulary.
    """
    normalizer, model = content["normalizer"], content["model"]
    lowercase = bool(normalizer and normalizer.get("lowercase"))
    wanted = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": lowercase,
    }
    options = (model.get("unk_token"), model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word"))
    if (
        normalizer != wanted
        or content["pre_tokenizer"] != {"type": "BertPreTokenizer"}
        or options != (UNKNOWN_TOKEN, "##", 100)
        or UNKNOWN_TOKEN not in model["vocab"]
    ):
        raise UnusableError("this WordPiece tokenizer is not BERT's")
    rests = {token[2:] for token in model["vocab"] if token.startswith("##")} - {""}
    dropped = {rest[0] for rest in rests} - rests
    if not rests or dropped or "" in model["vocab"]:
        raise UnusableError(f"the vocabulary lacks tokens for single characters within words ({sorted(dropped)[:5]} …)")
    if sorted(model["vocab"].values()) != list(range(len(model["vocab"]))):
        raise UnusableError("the vocabulary's ids have gaps")
    proof = "wordpiece_lowercase" if lowercase else "wordpiece_cased"
    reduced = {**content, "added_tokens": [], "post_processor": None}
    return TokieModel(reduced, proof)


def bpe_model(content: dict[str, Any]) -> TokieModel:
    """Check a byte-level BPE `tokenizer.json` and number its tokens as tokie needs them: bytes, then merges in order.

    Raises:
        UnusableError: if tokie might encode otherwise with this vocabulary.
    """
    model, before = content["model"], content["pre_tokenizer"] or {}
    plain = {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"}
    if (
        model.get("type") != "BPE"
        or any(model.get(name) for name in plain)
        or content["normalizer"] is not None
        or before.get("type") != "ByteLevel"
        or not before.get("use_regex", True)
    ):
        raise UnusableError("this BPE tokenizer is not RoBERTa's")
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UnusableError("on this processor tokie splits text by other code than the compared one")
    vocabulary: dict[str, int] = model["vocab"]
    merges = [_pair(merge) for merge in model["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(left + right for left, right in merges)]
    if len(set(tokens)) < len(tokens) or not vocabulary.keys() >= set(tokens):
        raise UnusableError("the vocabulary lacks a byte, or two merges make one token")
    odd = sorted(t for t in tokens if t[0] == "'" and t[1:2].isascii() and t[1:2].isalpha() and t not in _CONTRACTIONS)
    if odd:
        raise UnusableError(f"the vocabulary joins apostrophes to words ({odd[:5]} …)")
    _check_reachable(tokens, merges)
    reduced = {
        **content,
        "added_tokens": [],
        "post_processor": None,
        "model": {**model, "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges},
    }
    ids = np.array([vocabulary[token] for token in tokens], np.int32)
    return TokieModel(
        reduced,
        "bpe",
        longest_piece=_LONGEST_BPE_PIECE,
        ids=ids,
        prefix_space=bool(before.get("add_prefix_space")),
        apostrophes_are_odd=True,
    )


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _check_reachable(tokens: list[str], merges: list[tuple[str, str]]) -> None:
    model = tokenizers.models.BPE({token: index for index, token in enumerate(tokens)}, merges)
    for index, token in enumerate(tokens):
        pieces = model.tokenize(token)
        if len(pieces) != 1 or pieces[0].id != index:
            raise UnusableError(f"the merges never make the token {token!r}")
