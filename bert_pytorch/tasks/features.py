"""What a model reads of a task's examples, and the cache that keeps it between runs."""
# n sequences, T tokens together

import contextlib
import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.files import atomic_path
from bert_pytorch.records import MicroBatch
from bert_pytorch.tokenization.flat import FlatTokens
from bert_pytorch.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raised when an array changes its meaning."""

CACHE_LIMIT_BYTES = 8 * 2**30
"""How large the folder of features may grow; what was used least recently goes first."""


class Features(NamedTuple):
    """Sequences laid end to end, `[CLS] A [SEP] (B [SEP])`; an example has one, or several neighbouring windows."""

    input_ids: np.ndarray
    """int32 (T,)."""
    segment_b_starts: np.ndarray
    """int32 (n,), where B begins within each sequence; the sequence's length where there is no B."""
    cu_seqlens: np.ndarray
    """int64 (n + 1,), where each sequence starts; the last entry is T."""
    examples: np.ndarray
    """int32 (n,), number of the example that each sequence belongs to, not decreasing."""
    labels: np.ndarray | None
    """First dimension n, or T where tokens are labelled; None without labels."""
    extra: Mapping[str, np.ndarray] = {}
    """Whatever else a task needs to read scores back, such as where a token stands in its text."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,), tokens of each sequence."""
        return np.diff(self.cu_seqlens)


class Packed(NamedTuple):
    """Some sequences of a part, end to end."""

    inputs: MicroBatch
    """B sequences of T tokens, nothing masked."""
    tokens: np.ndarray
    """int64 (T,), place of each token in the part."""


def packed(features: Features, sequences: np.ndarray) -> Packed:
    """Lay chosen sequences end to end.

    Args:
        features: of the part.
        sequences: int64 (B,), in any order; B may be 0.
    """
    lengths = features.lengths[sequences]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    tokens = np.repeat(features.cu_seqlens[:-1][sequences], lengths) + positions
    in_b = positions >= np.repeat(features.segment_b_starts[sequences], lengths)
    none = np.zeros(0, np.int64)
    inputs = MicroBatch(
        input_ids=features.input_ids[tokens],
        token_type_ids=in_b.astype(np.int32),
        position_ids=positions.astype(np.int32),
        cu_seqlens=starts.astype(np.int32),
        masked_positions=none,
        labels=none,
        next_sentence_labels=None,
    )
    return Packed(inputs, tokens)


def sequence_features(
    tokenizer: Tokenizer,
    first: Sequence[str],
    second: Sequence[str] | None,
    max_seq_length: int,
    labels: np.ndarray | None,
) -> Features:
    """Make one sequence of each text or pair of texts; what is too long is cut at its end, the longer text first.

    Args:
        tokenizer: of the checkpoint.
        first: n texts.
        second: n texts that go with them.
        max_seq_length: tokens of a sequence at most, special ones included.
        labels: first dimension n.
    """
    vocabulary = tokenizer.vocabulary
    cls, sep = np.array([vocabulary.cls_id], np.int32), np.array([vocabulary.sep_id], np.int32)
    one = _parts(tokenizer.encode_flat(first))
    two = None if second is None else _parts(tokenizer.encode_flat(second))
    pieces, lengths, starts = [], [], []
    for index, ids in enumerate(one):
        if two is None:
            kept = ids[: max_seq_length - 2]
            pieces += [cls, kept, sep]
            lengths.append(len(kept) + 2)
            starts.append(len(kept) + 2)
            continue
        kept_first, kept_second = truncated(len(ids), len(two[index]), max_seq_length - 3)
        pieces += [cls, ids[:kept_first], sep, two[index][:kept_second], sep]
        lengths.append(kept_first + kept_second + 3)
        starts.append(kept_first + 2)
    return Features(
        input_ids=np.concatenate(pieces).astype(np.int32) if pieces else np.zeros(0, np.int32),
        segment_b_starts=np.array(starts, np.int32),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        examples=np.arange(len(one), dtype=np.int32),
        labels=labels,
    )


def truncated(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of a pair are kept: as BERT does, the longer loses one at a time, the second at a tie.

    google-research/bert, run_classifier.py, `_truncate_seq_pair`, in closed form.
    """
    if first + second <= room:
        return first, second
    kept_second = min(second, max(room - first, room // 2))
    return room - kept_second, kept_second


def _parts(flat: FlatTokens) -> list[np.ndarray]:
    return [flat.ids[start:end] for start, end in zip(flat.offsets[:-1], flat.offsets[1:], strict=True)]


def cached_features(folder: Path | None, key: Mapping[str, Any], make: Callable[[], Features]) -> Features:
    """Return features from the cache, or make them and keep them there.

    A file that is damaged, or was made from anything else, is made anew; one that cannot be written costs a warning.

    Args:
        folder: of the cache; None keeps nothing.
        key: all that shapes the features, as plain values.
        make: called where the cache has none.
    """
    if folder is None:
        return make()
    text = json.dumps({"format_version": FORMAT_VERSION, **key}, sort_keys=True, ensure_ascii=False)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    if (found := _read(path, text)) is not None:
        return found
    features = make()
    try:
        _write(path, features, text)
        _prune(folder, keep=path)
    except OSError as error:
        logger.warning("features are not kept: %s", error)
    return features


def default_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return `features` in $BERT_PYTORCH_CACHE, else in `bert_pytorch` of $XDG_CACHE_HOME or ~/.cache.

    None where there is no home folder.
    """
    if environment.get("BERT_PYTORCH_CACHE"):
        return Path(environment["BERT_PYTORCH_CACHE"]) / "features"
    with contextlib.suppress(RuntimeError):
        return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bert_pytorch" / "features"
    return None


_ARRAYS = ("input_ids", "segment_b_starts", "cu_seqlens", "examples")


def _write(path: Path, features: Features, key: str) -> None:
    arrays = {name: getattr(features, name) for name in _ARRAYS}
    arrays["key"] = np.frombuffer(key.encode(), np.uint8)
    if features.labels is not None:
        arrays["labels"] = features.labels
    arrays |= {f"extra_{name}": array for name, array in features.extra.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, allow_pickle=False)


def _read(path: Path, key: str) -> Features | None:
    """Read a file whose members' checksums hold and whose arrays fit each other; None otherwise."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.pop("key").tobytes().decode() != key:
            return None
        features = Features(
            **{name: arrays.pop(name) for name in _ARRAYS},
            labels=arrays.pop("labels", None),
            extra={name.removeprefix("extra_"): array for name, array in arrays.items()},
        )
        _check(features)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: these cached features cannot be used (%s) and are made anew.", path, error)
        return None
    with contextlib.suppress(OSError):  # a cache that is shared may not be ours
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    return features


def _check(features: Features) -> None:
    count, tokens = len(features.segment_b_starts), len(features.input_ids)
    starts = features.cu_seqlens
    if len(starts) != count + 1 or len(features.examples) != count or starts[0] != 0 or starts[-1] != tokens:
        raise ValueError("its arrays do not fit each other")
    if features.labels is not None and len(features.labels) not in (count, tokens):
        raise ValueError("its labels do not fit its sequences")


def _prune(folder: Path, keep: Path) -> None:
    files = [(file.stat(), file) for file in folder.glob("*.npz") if file != keep]
    files.sort(key=lambda entry: entry[0].st_mtime_ns, reverse=True)
    room = CACHE_LIMIT_BYTES - keep.stat().st_size
    for state, file in files:
        room -= state.st_size
        if room < 0:
            file.unlink(missing_ok=True)
