"""A random sample of whole documents of formatted text, in the layout of formatted text: the stage `sample`."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.plan import Block, DocumentTable, divide, find_documents, read_documents, text_files
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_path, exclusive_lock
from bert_pytorch.progress import Progress

logger = logging.getLogger(__name__)

RECORD = "sample.json"
_VERSION = 1
_BLOCK_BYTES = 16 << 20
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGB]?)", re.IGNORECASE)
_COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_BYTE_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class SampleConfig(PoolConfig):
    """Draw a random sample of whole documents of formatted text."""

    input: tuple[Path, ...] = ()
    """Formatted text: files, or folders searched for *.txt."""
    output: Path | None = None
    """Folder for the sample, which is formatted text again."""
    sentences: str = ""
    """Draw documents until they have so many sentences: 500000, 500K, 1.5M, 2B."""
    documents: str = ""
    """Draw so many documents; 10K, 1M, …"""
    bytes: str = ""
    """Draw documents until they have so many bytes of text: 100M, 2G (10⁶ and 10⁹ bytes)."""
    fraction: float | None = Field(None, gt=0, le=1)
    """Draw this share of the documents."""
    shard_bytes: str = "100M"
    """Most bytes in a file of the sample; a larger document has a file of its own."""
    seed: int = Field(12345, ge=0)
    """Seed of the draw; one that asks for more with the same seed holds the smaller sample."""
    overwrite: bool = False
    """Remove what an earlier build left in the output folder and start anew."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "input_dir": "--input",
        "output_dir": "--output",
        "size": "--shard_bytes",
        "nproc": "--processes",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name formatted text, a file or a folder."
        if self.output is None:
            yield "--output is missing: name a folder for the sample."
        given = [f"--{name}" for name in _AMOUNTS if getattr(self, name) not in ("", None)]
        if len(given) != 1:
            found = "none of them" if not given else " and ".join(given)
            wanted = ", ".join(f"--{name}" for name in _AMOUNTS)
            yield f"found {found}, wanted one of {wanted}: how large is the sample?"
        for name in ("sentences", "documents", "bytes", "shard_bytes"):
            value = getattr(self, name)
            if value and (read := _amount(value, name)) is None:
                yield f"--{name}: found {value!r}, wanted a number such as 250000, 250K or 1.5M."
            elif value and not read:
                yield f"--{name}: found {value!r}, wanted more than 0."


_AMOUNTS = ("sentences", "documents", "bytes", "fraction")


def _amount(value: str, name: str) -> int | None:
    matched = _AMOUNT.fullmatch(value.strip())
    if matched is None:
        return None
    unit = (_BYTE_UNITS if name in ("bytes", "shard_bytes") else _COUNT_UNITS)[matched[2].upper()]
    return round(float(matched[1]) * unit)


def draw_sample(config: SampleConfig) -> Path:
    """Write the sample into `config.output` and return that folder; a finished one is left as it is.

    Documents are drawn without replacement, each with the same chance; they keep their order.

    Raises:
        InputError: if the text cannot be used, or the folder holds another build.
    """
    assert config.output is not None
    folder = config.output
    table = find_documents(text_files(config.input, config.output), config)
    if table.num_documents == 0:
        raise InputError(f"{', '.join(map(str, config.input))}: there is no text in it. Give formatted text.")
    settings: dict[str, Any] = {name: getattr(config, name) for name in (*_AMOUNTS, "shard_bytes", "seed")}
    fingerprint = fingerprint_of(_VERSION, settings, table.sha256)
    build = Build(folder, RECORD, fingerprint, settings, ("sample_*.txt",))
    with exclusive_lock(folder, "builds"):
        if config.overwrite:
            build.clear()
        if not build.needs_work() and _all_there(folder):
            logger.info("%s: finished already, nothing to do", folder)
            return folder
        with build.in_work():
            chosen = table.take(choose(table, config))
            shard_bytes = _amount(config.shard_bytes, "shard_bytes")
            assert shard_bytes is not None
            counts = _write(chosen, folder, shard_bytes, config)
            build.finish({"settings": settings, "fingerprint": fingerprint, "input_sha256": table.sha256, **counts})
    return folder


def choose(table: DocumentTable, config: SampleConfig) -> np.ndarray:
    """Draw documents: the first ones of a random order, as many as are asked for; all, if there are fewer.

    Returns:
        int64, indices into the table, ascending.  Where sentences or bytes are asked for, the last document drawn is
        the one that reaches them.
    """
    order = np.random.default_rng([config.seed, 7]).permutation(table.num_documents)
    if config.fraction is not None:
        return np.sort(order[: max(1, round(config.fraction * table.num_documents))])
    if config.documents:
        sizes, name = np.ones(table.num_documents, np.int64), "documents"
    elif config.bytes:
        sizes, name = table.ends - table.starts, "bytes"
    else:
        sizes, name = _count_sentences(table, config), "sentences"
    wanted = _amount(getattr(config, name), name)
    assert wanted is not None
    if sizes.sum() < wanted:
        logger.warning("the text has %s %s, fewer than asked for: all of it is taken", f"{sizes.sum():,}", name)
    return np.sort(order[: np.searchsorted(np.cumsum(sizes[order]), wanted) + 1])


def _count_sentences(table: DocumentTable, pool: PoolConfig) -> np.ndarray:
    blocks = divide(table, "", _BLOCK_BYTES)
    with Progress("count sentences", table.num_bytes) as progress:
        counts = run_tasks(_sentences_of, blocks, pool, _describe, progress, lambda block: block.documents.num_bytes)
    return np.concatenate(counts)


def _sentences_of(block: Block) -> np.ndarray:
    return np.fromiter(map(len, read_documents(block.documents)), np.int64, block.documents.num_documents)


def _describe(block: Block) -> str:
    return f"documents of {block.documents.files[int(block.documents.file_indices[0])]} and those that follow"


class _ShardTask(NamedTuple):
    path: Path
    block: Block


def _write(chosen: DocumentTable, folder: Path, shard_bytes: int, pool: PoolConfig) -> dict[str, Any]:
    """Write the sample's files and return what they hold."""
    tasks = [
        _ShardTask(folder / f"sample_{number:05d}.txt", Block("", number, chosen.take(np.arange(first, end))))
        for number, (first, end) in enumerate(_shares(chosen, shard_bytes))
    ]
    with Progress("sample", chosen.num_bytes) as progress:
        files = run_tasks(
            _write_shard,
            tasks,
            pool,
            lambda task: _describe(task.block),
            progress,
            lambda task: task.block.documents.num_bytes,
        )
    counts = {name: sum(file[name] for file in files) for name in ("documents", "sentences", "bytes")}
    logger.info("%s documents, %s sentences, %s bytes", *(f"{count:,}" for count in counts.values()))
    return {**counts, "files": files}


def _shares(documents: DocumentTable, shard_bytes: int) -> list[tuple[int, int]]:
    """Divide documents, a blank line behind each, into consecutive shares of at most `shard_bytes` or one document."""
    ends = np.cumsum(documents.ends - documents.starts + 2)
    shares, first = [], 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        end = max(int(np.searchsorted(ends, before + shard_bytes, side="right")), first + 1)
        shares.append((first, end))
        first = end
    return shares


def _write_shard(task: _ShardTask) -> dict[str, Any]:
    """Write one file, unless it is there, and tell what it holds."""
    if not task.path.exists():
        with atomic_path(task.path) as temporary, temporary.open("wb") as file:
            documents = filter(None, read_documents(task.block.documents))
            for number, sentences in enumerate(documents):
                file.write(("\n" * (number > 0) + "\n".join(sentences) + "\n").encode())
    digest, lines, blank, size = hashlib.sha256(), 0, 0, 0
    with task.path.open("rb") as file:
        for line in file:
            digest.update(line)
            size += len(line)
            lines += 1
            blank += line == b"\n"
    counts = {"bytes": size, "documents": blank + (size > 0), "sentences": lines - blank}
    return {"name": task.path.name, "sha256": digest.hexdigest(), **counts}


def _all_there(folder: Path) -> bool:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return all((folder / file["name"]).is_file() for file in record["files"])
