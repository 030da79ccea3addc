"""Rows of a shard as a person can read them: words joined, special tokens visible, masks with what stood there."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pytorch.inspect.terminal import Style, paint, printable
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer

_JOINS = "##"
"""Begins a token that goes on with a word, where it stands alone: BERT's sign, here for every kind of vocabulary."""


class Sample(NamedTuple):
    """One row, without its padding; t tokens."""

    input_ids: np.ndarray
    """int (t,), as the model sees them."""
    originals: np.ndarray
    """int (t,), before masking."""
    masked: np.ndarray
    """bool (t,), whether the model is asked for the token."""
    segment_b_start: int
    """Position of B's first token; t where there is no B."""
    next_sentence_label: int | None
    """1 = B is a random text; None without that task."""
    padding: int
    """Cells of the row that hold no token."""


class Words:
    """Tokens by id, as text; ids themselves where there is no vocabulary."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        vocabulary = None if tokenizer is None else tokenizer.vocabulary
        self._vocabulary: Vocabulary | None = vocabulary
        self._special = frozenset() if vocabulary is None else frozenset(vocabulary.special)
        self.mask_id = -1 if vocabulary is None else vocabulary.id_of(vocabulary.special.mask)

    def is_special(self, token_id: int) -> bool:
        """Whether an id is one of the special tokens."""
        return self._vocabulary is not None and self._token(token_id) in self._special

    def piece(self, token_id: int) -> tuple[str, bool]:
        """Return a token's text, and whether it joins the word before it."""
        if self._tokenizer is None:
            return str(token_id), False
        if self.is_special(token_id):
            return self._token(token_id), False
        text, joins = self._tokenizer.piece(self._token(token_id))
        return printable(text), joins

    def alone(self, token_id: int) -> str:
        """Return a token's text as it can be told apart without the one before it."""
        text, joins = self.piece(token_id)
        return f"{_JOINS}{text}" if joins else text

    def _token(self, token_id: int) -> str:
        assert self._vocabulary is not None
        return self._vocabulary.tokens[token_id]


def sample_lines(sample: Sample, words: Words, color: bool) -> Iterator[str]:
    """Yield the lines of one sample: segment A, segment B, padding."""
    start, end = sample.segment_b_start, len(sample.input_ids)
    yield f"  A  {_segment(sample, 0, min(start, end), words, color)}"
    if start < end:
        yield f"  B  {_segment(sample, start, end, words, color)}"
    if sample.padding:
        yield paint(f"  and {sample.padding} of padding", "special", color)


def _segment(sample: Sample, start: int, stop: int, words: Words, color: bool) -> str:
    parts = []
    for place in range(start, stop):
        shown, original = int(sample.input_ids[place]), int(sample.originals[place])
        text, joins = words.piece(original)
        style = _style(sample, place, words)
        if sample.masked[place]:
            text = f"{{{words.alone(shown)}→{words.alone(original)}}}"
        parts.append(("" if joins or place == start else " ") + paint(text, style, color))
    return "".join(parts)


def _style(sample: Sample, place: int, words: Words) -> Style:
    shown, original = int(sample.input_ids[place]), int(sample.originals[place])
    if sample.masked[place]:
        if shown == original:
            return "kept"
        return "masked" if shown == words.mask_id or words.mask_id < 0 else "random"
    if words.is_special(original):
        return "special"
    return "segment_b" if place >= sample.segment_b_start else "segment_a"


def legend(words: Words, masks: bool, color: bool) -> str:
    """Explain the marks in one line."""
    parts = [paint("segment A", "segment_a", color), paint("segment B", "segment_b", color)]
    kept = f"{paint('{word→word}', 'kept', color)} kept"
    if masks and words.mask_id < 0:
        parts += [f"{paint('{input→original}', 'masked', color)} masked or replaced", kept]
    elif masks:
        mask = paint(f"{{{words.alone(words.mask_id)}→word}}", "masked", color)
        parts += [
            f"{{input→original}}: {mask} masked",
            f"{paint('{other→word}', 'random', color)} random replacement",
            kept,
        ]
    return ", ".join(parts)
