"""Counts over formatted text: sizes, lengths, unknown words, duplicates, characters; a map over blocks of documents."""

import functools
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.inspection.histograms import (
    Chart,
    Histogram,
    add_histograms,
    draw_up,
    from_dense,
    histogram_of,
    summary,
)
from bert_pytorch.corpus.inspection.token_use import token_use
from bert_pytorch.corpus.plan import Block, divide, find_documents, read_documents, text_files
from bert_pytorch.errors import InputError
from bert_pytorch.progress import Progress
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer, tokenizer_from_vocabulary
from bert_pytorch.vocabulary import vocabulary_sha256

_BLOCKS = 256
_SMALLEST_BLOCK = 1 << 20
_CHARACTERS_AT_ONCE = 1 << 20
_SENTENCES_KEPT = 1 << 24
"""Sentences whose hashes are compared: of more, a share chosen by the hash, so that copies stay together."""
_BYTES_A_SENTENCE = 64
_WORDS_KEPT = 1000
"""Unknown words that a block reports, the most frequent ones."""
_SHOWN = 20
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")


class TextTask(NamedTuple):
    """Documents to be counted."""

    block: Block
    vocabulary: Vocabulary | None
    kept_shift: int
    """A sentence's hash is kept if its lowest `kept_shift` bits are 0."""

    @property
    def num_bytes(self) -> int:
        """Of text."""
        return self.block.documents.num_bytes

    def describe(self) -> str:
        """Name the first file that is read."""
        documents = self.block.documents
        return f"text from {documents.files[documents.file_indices[0]]} on"


class TextCounts(NamedTuple):
    """What was counted; tokens are words where there is no vocabulary."""

    documents: int
    words: int
    num_bytes: int
    sentence_tokens: Histogram
    document_tokens: Histogram
    token_ids: np.ndarray
    """int64 (V,), occurrences of each id; (0,) without a vocabulary."""
    unknown_words: Counter[str]
    document_hashes: np.ndarray
    """uint64 (D, 2)."""
    sentence_hashes: np.ndarray
    """uint64 (S,), of the sentences compared."""
    characters: Histogram
    """Of code points."""


def text_stats(
    paths: Sequence[Path], vocabulary: Vocabulary | None, pool: PoolConfig
) -> tuple[dict[str, Any], list[Chart]]:
    """Count formatted text.

    Args:
        paths: files, or folders of `*.txt`.
        vocabulary: of the tokens; None counts words only.
        pool: how the work is spread; the result does not depend on it.

    Raises:
        InputError: if the text cannot be used.
    """
    documents = find_documents(text_files(paths), pool)
    if documents.num_documents == 0:
        raise InputError(f"{', '.join(map(str, paths))}: there is no text in it. Give formatted text.")
    shift = max(0, (documents.num_bytes // (_BYTES_A_SENTENCE * _SENTENCES_KEPT)).bit_length())
    blocks = divide(documents, "text_", max(documents.num_bytes // _BLOCKS, _SMALLEST_BLOCK))
    tasks = [TextTask(block, vocabulary, shift) for block in blocks]
    with Progress("count text", documents.num_bytes) as progress:
        parts = run_tasks(count_block, tasks, pool, TextTask.describe, progress, lambda task: task.num_bytes)
    counts = _add(parts)
    return _as_json(counts, vocabulary, shift), _charts(counts, vocabulary)


def count_block(task: TextTask) -> TextCounts:
    """Count one block; about 1 MB of text is held at a time."""
    tokenizer = None if task.vocabulary is None else _tokenizer(task.vocabulary)
    batches = _batches(read_documents(task.block.documents))
    return _add([_count(batch, tokenizer, task.kept_shift) for batch in batches])._replace(num_bytes=task.num_bytes)


def _batches(documents: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    batch: list[list[str]] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += sum(map(len, document))
        if size >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(documents: list[list[str]], tokenizer: Tokenizer | None, shift: int) -> TextCounts:
    lines = [line for document in documents for line in document]
    borders = np.cumsum([0, *map(len, documents)])
    words = np.array([len(line.split()) for line in lines], np.int64)
    lengths, token_ids, unknown = words, np.empty(0, np.int64), Counter[str]()
    if tokenizer is not None:
        tokens = tokenizer.encode_flat(lines)
        lengths = np.diff(tokens.offsets)
        vocabulary = tokenizer.vocabulary
        token_ids = np.bincount(tokens.ids, minlength=len(vocabulary.tokens))
        places = np.flatnonzero(tokens.ids == vocabulary.id_of(vocabulary.special.unknown))
        owners = np.unique(np.searchsorted(tokens.offsets, places, "right") - 1)
        unknown = _unknown_words([lines[owner] for owner in owners], tokenizer)
    running = np.concatenate([[0], np.cumsum(lengths)])
    hashes = _hashes(lines, 8)[:, 0]
    code_points = np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), np.uint32)
    return TextCounts(
        documents=len(documents),
        words=int(words.sum()),
        num_bytes=0,
        sentence_tokens=histogram_of(lengths),
        document_tokens=histogram_of(np.diff(running[borders])),
        token_ids=token_ids,
        unknown_words=unknown,
        document_hashes=_hashes(["\n".join(document) for document in documents], 16),
        sentence_hashes=hashes[hashes & np.uint64((1 << shift) - 1) == 0],
        characters=from_dense(np.bincount(code_points)),
    )


def _unknown_words(lines: list[str], tokenizer: Tokenizer) -> Counter[str]:
    """Count the words that become the unknown token, among sentences that have it."""
    found = Counter(word for line in lines for word in _WORD.findall(line))
    words = sorted(found)
    tokens = tokenizer.encode_flat(words)
    places = np.flatnonzero(tokens.ids == tokenizer.vocabulary.id_of(tokenizer.vocabulary.special.unknown))
    owners = np.unique(np.searchsorted(tokens.offsets, places, "right") - 1)
    return Counter({words[owner]: found[words[owner]] for owner in owners})


def _hashes(texts: list[str], size: int) -> np.ndarray:
    content = b"".join(hashlib.blake2b(text.encode(), digest_size=size).digest() for text in texts)
    return np.frombuffer(content, "<u8").reshape(-1, size // 8)


def _add(parts: Sequence[TextCounts]) -> TextCounts:
    unknown: Counter[str] = Counter()
    for part in parts:
        unknown.update(part.unknown_words)
    return TextCounts(
        documents=sum(part.documents for part in parts),
        words=sum(part.words for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        sentence_tokens=add_histograms(part.sentence_tokens for part in parts),
        document_tokens=add_histograms(part.document_tokens for part in parts),
        token_ids=np.sum([part.token_ids for part in parts], axis=0),
        unknown_words=Counter(dict(_most_common(unknown, _WORDS_KEPT))),
        document_hashes=np.concatenate([part.document_hashes for part in parts]),
        sentence_hashes=np.concatenate([part.sentence_hashes for part in parts]),
        characters=add_histograms(part.characters for part in parts),
    )


def _most_common(counter: Counter[str], count: int) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:count]


def _as_json(counts: TextCounts, vocabulary: Vocabulary | None, shift: int) -> dict[str, Any]:
    unit = "words" if vocabulary is None else "tokens"
    sentences, compared = counts.sentence_tokens.total, len(counts.sentence_hashes)
    result: dict[str, Any] = {
        "documents": counts.documents,
        "sentences": sentences,
        "words": counts.words,
        "characters": counts.characters.total,
        "bytes": counts.num_bytes,
        f"{unit}_a_sentence": summary(counts.sentence_tokens),
        f"{unit}_a_document": summary(counts.document_tokens),
        "duplicates": {
            "documents": counts.documents - len(np.unique(_as_pairs(counts.document_hashes))),
            "document_rate": _rate(len(np.unique(_as_pairs(counts.document_hashes))), counts.documents),
            "sentence_rate": _rate(len(np.unique(counts.sentence_hashes)), compared),
            "sentences_compared": 1 / (1 << shift),
        },
        "scripts": _scripts(counts.characters),
        "characters_most_frequent": _frequent_characters(counts.characters),
    }
    if vocabulary is not None:
        result["tokens"] = counts.sentence_tokens.sum
        result["vocabulary"] = token_use(counts.token_ids, vocabulary, vocabulary_sha256(vocabulary))
        result["vocabulary"]["unknown_words"] = [list(item) for item in _most_common(counts.unknown_words, _SHOWN)]
    return result


def _rate(distinct: int, total: int) -> float:
    return round(1 - distinct / total, 6) if total else 0.0


def _as_pairs(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view([("high", "<u8"), ("low", "<u8")]).reshape(-1)


def _frequent_characters(characters: Histogram) -> list[list[str | int]]:
    order = np.argsort(-characters.counts, kind="stable")[:_SHOWN]
    return [[chr(characters.values[index]), int(characters.counts[index])] for index in order]


def _scripts(characters: Histogram) -> dict[str, float]:
    """Return the share of each script among all characters; digits, spaces, punctuation and symbols by kind."""
    kinds: Counter[str] = Counter()
    for value, count in zip(characters.values.tolist(), characters.counts.tolist(), strict=True):
        kinds[_kind(chr(value))] += count
    return {kind: round(count / max(1, characters.total), 6) for kind, count in _most_common(kinds, len(kinds))}


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "L":
        return unicodedata.name(character, "other letters").split()[0].removesuffix("-").capitalize()
    groups = {"M": "combining marks", "N": "numbers", "P": "punctuation", "S": "symbols", "Z": "spaces"}
    return groups.get(category[0], "control and unassigned")


def _charts(counts: TextCounts, vocabulary: Vocabulary | None) -> list[Chart]:
    unit = "words" if vocabulary is None else "tokens"
    return [
        draw_up(counts.sentence_tokens, "Length of sentences", f"{unit} in a sentence", "sentences"),
        draw_up(counts.document_tokens, "Length of documents", f"{unit} in a document", "documents"),
    ]


@functools.lru_cache(maxsize=2)
def _tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    return tokenizer_from_vocabulary(vocabulary)
