"""Texts to sequences of tokens, block after block; large inputs on several processes."""

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from bert_pytorch.data.texts.cutting import FlatSequences, cut_documents
from bert_pytorch.data.texts.reading import TextBlock, read_blocks
from bert_pytorch.errors import WorkerError
from bert_pytorch.progress import Progress
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary

WORTH_PROCESSES = 64 << 20
"""Bytes of text from which on processes repay the second that they take to start.  Not threads: reading would wait
for Python's lock at every row (measured: two threads are slower than none)."""
MOST_PROCESSES = 4
"""One process reads about as fast as three tokenize."""

_SECONDS_TO_END = 5.0


def tokenize(
    paths: Sequence[Path], column: str, vocabulary: Vocabulary, longest: int, progress: Progress, text_bytes: int
) -> Iterator[FlatSequences]:
    """Yield the sequences of all documents of files, in order; raises as `read_blocks` does.

    Args:
        paths: files of text.
        column: which of their columns.
        vocabulary: what they are tokenized with.
        longest: tokens of a sequence at most.
        progress: told of the bytes that are done.
        text_bytes: how much there is, about.

    Raises:
        WorkerError: if a process is killed.
    """
    blocks = read_blocks(paths, column)
    processes = min(_num_cores(), MOST_PROCESSES)
    if text_bytes < WORTH_PROCESSES or processes == 1:
        done = _in_this_process(blocks, vocabulary, longest)
    else:
        done = _in_processes(blocks, vocabulary, longest, processes)
    for sequences, size in done:
        progress.advance(size)
        yield sequences


def _in_this_process(
    blocks: Iterable[TextBlock], vocabulary: Vocabulary, longest: int
) -> Iterator[tuple[FlatSequences, int]]:
    tokenizer = tokenizer_from_vocabulary(vocabulary)
    for texts, size in blocks:
        yield cut_documents(tokenizer.encode_flat(texts), longest, vocabulary), size


def _in_processes(
    blocks: Iterable[TextBlock], vocabulary: Vocabulary, longest: int, processes: int
) -> Iterator[tuple[FlatSequences, int]]:
    """Hand blocks to processes in turn, one to each at a time, and take them back in the same order."""
    context = multiprocessing.get_context("spawn")  # forked children inherit the tokenizer's locks
    with ExitStack() as held:
        workers = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, vocabulary, longest), daemon=True)
            worker.start()
            theirs.close()
            held.callback(worker.join, _SECONDS_TO_END)
            held.callback(ours.close)  # first: what a worker waits for, so that it ends
            workers.append(ours)
        sizes: list[int] = []
        for number, (texts, size) in enumerate(blocks):
            worker_end = workers[number % processes]
            if number >= processes:
                yield _receive(worker_end), sizes[number - processes]
            _send(worker_end, texts)
            sizes.append(size)
        for number in range(max(len(sizes) - processes, 0), len(sizes)):
            yield _receive(workers[number % processes]), sizes[number]


def _work(blocks: Connection, vocabulary: Vocabulary, longest: int) -> None:
    """Tokenize what comes until the other end closes or its process ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to the whole group; the other process decides
    tokenizer = tokenizer_from_vocabulary(vocabulary)
    try:
        while True:
            blocks.send(cut_documents(tokenizer.encode_flat(blocks.recv()), longest, vocabulary))
    except (EOFError, OSError):
        return


def _receive(worker: Connection) -> FlatSequences:
    try:
        sequences: FlatSequences = worker.recv()
    except (EOFError, OSError):
        raise _lost() from None
    return sequences


def _send(worker: Connection, texts: list[str]) -> None:
    try:
        worker.send(texts)
    except OSError:
        raise _lost() from None


def _lost() -> WorkerError:
    return WorkerError(
        "a process that tokenizes text was killed, by the system if memory ran out. Start again, with more memory or "
        "with the text made to shards: python -m bert_pytorch.corpus format, then encode"
    )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
