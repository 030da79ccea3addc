"""The one door to `tokie`, an encoder 20 to 40 times faster than `tokenizers` on one core.

Its ids are those of `tokenizers` on text that it is proven for (`tokenization.proven`); every other text goes to the
reference.  It is used only where that proof holds: these versions, a vocabulary of the usual structure.
"""

import contextlib
import importlib.metadata
import itertools
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tokenizers

from bert_pytorch.tokenization.fast_models import TokieModel, UnusableError, bpe_model, wordpiece_model
from bert_pytorch.tokenization.flat import FlatTokens, batches, encode_flat_reference
from bert_pytorch.tokenization.proven import proven_versions, unproven_code_points

logger = logging.getLogger(__name__)

BATCH_CHARACTERS = 1 << 18
"""Texts are handed over in pieces of about this size; larger ones leave the processor's cache and gain nothing."""

EncodeBatch = Callable[..., tuple[np.ndarray, np.ndarray]]


class FastEncoder:
    """Encodes as `encode_flat_reference` does, faster."""

    def __init__(self, encode: EncodeBatch, model: TokieModel, reference: tokenizers.Tokenizer) -> None:
        self._encode = encode
        self._model = model
        self._reference = reference
        self._unproven = unproven_code_points(model.proof)
        self._unproven_ascii = [chr(code) for code in np.flatnonzero(self._unproven[:128])]

    @classmethod
    def from_tokenizer_json(
        cls, json_text: str, kind: Literal["wordpiece", "byte_bpe"], reference: tokenizers.Tokenizer | None = None
    ) -> Self | None:
        """Make the encoder of a `tokenizer.json`, or say once in the log why there is none and return None.

        Args:
            json_text: the content of the file.
            kind: which model it holds.
            reference: encodes what tokie may not; by default made from the same file.
        """
        try:
            content = json.loads(json_text)
            model = wordpiece_model(content) if kind == "wordpiece" else bpe_model(content)
            encode = _load_tokie(model.json_content)
        except UnusableError as reason:
            _say_once(f"tokenizing with the reference, tokenizers: {reason}")
            return None
        return cls(encode, model, reference or tokenizers.Tokenizer.from_str(json_text))

    def encode_flat(self, texts: Sequence[str]) -> FlatTokens:
        """Encode texts without special tokens; the names of special tokens in them are ordinary text.

        Args:
            texts: any number of texts, each encoded by itself.
        """
        arrays, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
        for batch in batches(texts, BATCH_CHARACTERS):
            ids, lengths = self._encode_batch(batch)
            arrays.append(ids)
            counts.append(lengths)
        return FlatTokens(np.concatenate(arrays), np.cumsum(np.concatenate(counts), dtype=np.int64))

    def _encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        slow = self._unproven_texts(texts)
        if not slow.any():
            return self._encode_fast(texts)
        rest = encode_flat_reference(self._reference, list(itertools.compress(texts, slow.tolist())))
        ids, lengths = self._encode_fast(list(itertools.compress(texts, (~slow).tolist())))
        counts = np.empty(len(texts), np.int64)
        counts[slow], counts[~slow] = np.diff(rest.offsets), lengths
        from_reference = np.repeat(slow, counts)
        both = np.empty(len(from_reference), np.int32)
        both[from_reference], both[~from_reference] = rest.ids, ids
        return both, counts

    def _encode_fast(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._model.prefix_space:
            texts = [f" {text}" if text and text[0] != " " else text for text in texts]
        ids, lengths = self._encode(texts, add_special_tokens=False)
        ids = ids.view(np.int32)
        return ids if self._model.ids is None else self._model.ids[ids], lengths.view(np.int64)

    def _unproven_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Find the texts that tokie may encode otherwise: bool (n,)."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        is_ascii = np.fromiter(map(str.isascii, texts), bool, len(texts))
        unproven = lengths * np.where(is_ascii, 1, 4) > self._model.longest_piece
        for index in np.flatnonzero(unproven).tolist():
            unproven[index] = self._is_too_long(texts[index])
        for indices in (np.flatnonzero(is_ascii), np.flatnonzero(~is_ascii)):
            if len(indices):
                chosen = texts if len(indices) == len(texts) else [texts[index] for index in indices.tolist()]
                positions = self._unproven_positions("".join(chosen))
                rows = np.searchsorted(np.cumsum(lengths[indices]), positions, side="right")
                unproven[indices[rows]] = True
        return unproven

    def _is_too_long(self, text: str) -> bool:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size <= self._model.longest_piece or size > self._model.longest_text:
            return size > self._model.longest_piece
        runs = itertools.chain(re.split("[ \n]", text), re.findall(r"\s+", text))
        return max(map(len, runs)) * 4 > self._model.longest_piece

    def _unproven_positions(self, text: str) -> np.ndarray:
        if text.isascii():
            if not any(character in text for character in self._unproven_ascii):
                return np.empty(0, np.int64)
            codes = np.frombuffer(text.encode("ascii"), np.uint8)
        else:
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        unproven = self._unproven[codes]
        if self._model.apostrophes_are_odd:
            unproven[:-1] |= (codes[:-1] == ord("'")) & (codes[1:] > 0x7F)
        return np.flatnonzero(unproven)


def _load_tokie(content: dict[str, Any]) -> EncodeBatch:
    for name, proven in proven_versions().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise UnusableError(f"{name} {proven} is not installed (pip install -r requirements.txt)") from None
        if found != proven:
            raise UnusableError(f"found {name} {found}; the fast path is proven equal only with {proven}")
    try:
        import tokie
    except ImportError as error:
        raise UnusableError(f"tokie does not load here: {error}") from error
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        path = Path(folder) / "tokenizer.json"  # it reads files only
        path.write_text(json.dumps(content), encoding="ascii")
        try:
            loaded: Any = tokie.Tokenizer.from_json(str(path))  # its stubs lack encode_batch_flat
        except tokie.TokieError as error:
            raise UnusableError(f"tokie does not read this vocabulary: {error}") from error
        encode: EncodeBatch = loaded.encode_batch_flat
        encode(["a"], add_special_tokens=False)
    return encode


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let tokie, which counts its processors at its first call and never again, count one.

    It would start a thread for each processor at every call, in each of as many worker processes.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    processors = os.sched_getaffinity(0)
    try:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {min(processors)})
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, processors)


@cache
def _say_once(message: str) -> None:
    logger.info(message)
