"""Wikipedia dumps: parts of a `.xml.bz2` file to the text of articles, through wikiextractor.

wikiextractor 3.1.0 is AGPL and stays a separate program.  Run on a whole dump it reads with one core; here each part of
the dump has a wikiextractor of its own, fed with the part's pages and read from, so that every core is busy and neither
the XML nor the extracted text is ever copied to disk.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from bert_pytorch.corpus.inputs.bzip2 import read_range
from bert_pytorch.corpus.inputs.stretches import ReadOptions, Source, Stretch
from bert_pytorch.errors import BertPytorchError, InputError, MissingDependencyError

_SMALLEST_PART, _LARGEST_PART = 4 << 20, 16 << 20
"""Compressed bytes of a part: 1/16 of the dump within these limits.  A part costs 0.2 s of processor time to begin, its
work is some 0.8 s a MiB."""
_UNPACKED = 4
"""XML takes about so many times the bytes that it is packed in."""
_STEP = 1 << 20
_LARGEST_HEADER, _LARGEST_PAGE = 1 << 20, 64 << 20
_PAGE, _PAGE_END, _DUMP_END = b"<page>", b"</page>", b"</mediawiki>"
_SITEINFO = b"""<mediawiki><siteinfo><namespaces>
<namespace key="10">Template</namespace>
</namespaces>
</siteinfo>
"""
"""For a dump that lacks its own, in which wikiextractor would find no page."""
_LINES_OF_FAILURE = 5
_LAST_WORDS = 1.0
"""Seconds for the rest of a traceback."""
_GUARD = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[2:])
threading.Thread(target=lambda: (os.read(int(sys.argv[1]), 1), os.killpg(0, signal.SIGKILL)), daemon=True).start()
sys.exit(child.wait())
"""
"""Runs wikiextractor, and ends it and its processes when we close a pipe or are killed: on their own they hang."""


def check_dump(path: Path) -> None:
    """Look at both ends of a dump, before hours of work.

    Raises:
        MissingDependencyError: if wikiextractor is not installed.
        InputError: if it is no MediaWiki dump, or cut off.
    """
    if importlib.util.find_spec("wikiextractor") is None:
        raise MissingDependencyError(
            f"{path}: reading a Wikipedia dump needs wikiextractor, which is not installed. "
            "Install it: pip install -r requirements-extras.txt"
        )
    _read_header(path)
    size = path.stat().st_size
    tail = b""
    for piece in read_range(path, max(0, size - 2 * _STEP), size):
        tail = (tail + piece)[-1000:]
    if not tail.rstrip().endswith(_DUMP_END):
        raise InputError(
            f"{path}: it does not end with {_DUMP_END.decode()}: cut off? Copy or download it again "
            "(dumps.wikimedia.org lists the size and SHA-1 of every file)."
        )


def divide_dump(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Divide a dump into its parts, whatever the size wanted."""
    ends = part_ends(source.path)
    return [
        Stretch(source, start, end, (end - start) * _UNPACKED) for start, end in zip([0, *ends], ends, strict=False)
    ]


def read_dump(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the articles of a part of a dump; raises as `read_articles` does."""
    return read_articles(stretch.path, stretch.start, stretch.end)


def part_ends(path: Path) -> list[int]:
    """Return where the parts of a dump end, in compressed bytes; they depend on nothing but its size."""
    size = path.stat().st_size
    part = min(max(size // 16, _SMALLEST_PART), _LARGEST_PART)
    return [*range(part, size - part // 2, part), size]


def read_articles(path: Path, start: int, end: int) -> Iterator[str]:
    """Yield the text of the articles that begin in a part of a dump, in order, without their titles.

    Redirects and pages outside the main namespace are left out, as wikiextractor does.  Templates are left out, too:
    to expand them, every part would have to load those of the whole dump, and those that stand within sentences
    (units, languages) are programs in Lua today, which wikiextractor cannot run.

    Args:
        path: `….xml.bz2`, of one bzip2 stream or many.
        start: of the part, in compressed bytes.
        end: of the part; a page belongs to the part in whose blocks it begins.

    Raises:
        InputError: if the dump is damaged, or wikiextractor fails.
    """
    where = f"{path}, bytes {start} to {end}"
    command = [sys.executable, "-m", "wikiextractor.WikiExtractor", "/dev/stdin", "--output", "-", "--json"]
    command += ["--html-safe", "", "--no-templates", "--processes", "1", "--quiet"]  # "" leaves & < > as they are
    lifeline, our_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(lifeline), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=[lifeline], start_new_session=True, env=os.environ | {"PYTHONUTF8": "1"},
    )  # fmt: skip
    os.close(lifeline)
    conversation = _Conversation(process, our_end, _part_of_dump(path, start, end))
    try:
        assert process.stdout is not None
        for line in process.stdout:
            yield _text_of(line, where)
        conversation.finish(where)
    finally:
        conversation.close()


class _Conversation:
    """Feeds wikiextractor and listens to its complaints while its output is read."""

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int, pieces: Iterator[bytes]) -> None:
        self._process, self._lifeline, self._pieces = process, lifeline, pieces
        self._open = threading.Lock()
        self._error: BaseException | None = None
        self._said: list[str] = []
        self._crashed = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._feed, self._listen)]
        for thread in self._threads:
            thread.start()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                for piece in self._pieces:
                    stdin.write(piece)
        except BaseException as error:  # told by the thread that reads
            self._error = error
            self._kill()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-_LINES_OF_FAILURE:], line.decode("utf-8", "replace").rstrip()]
            if line.startswith(b"Traceback") and not self._crashed:
                self._crashed = True
                threading.Timer(_LAST_WORDS, self._kill).start()  # its main process waits for a crashed one for ever

    def _kill(self) -> None:
        with self._open:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def finish(self, where: str) -> None:
        """Wait for the end and raise what went wrong."""
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        if isinstance(self._error, (BertPytorchError, OSError)):
            raise self._error
        if self._error is not None:
            raise RuntimeError(f"{where}: reading the dump failed") from self._error
        if code != 0 or self._crashed:
            said = "\n  ".join(self._said)
            raise InputError(f"{where}: wikiextractor failed with exit code {code}. It said:\n  {said}")

    def close(self) -> None:
        """End wikiextractor if it still runs."""
        self._kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _text_of(line: bytes, where: str) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{where}: wikiextractor wrote what is not an article: {line[:200]!r}.") from None


def _part_of_dump(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield a dump in pieces that holds only the pages of one part."""
    yield _read_header(path)
    yield from _read_pages(path, start, end)
    yield b"\n" + _DUMP_END + b"\n"


def _read_header(path: Path) -> bytes:
    header = b""
    for piece in _read_on(path, 0):
        header += piece
        if _PAGE in header or len(header) > _LARGEST_HEADER:
            break
    header = header.partition(_PAGE)[0]
    if b"<mediawiki" not in header:
        raise InputError(
            f"{path}: no MediaWiki dump: no <mediawiki> before its first page. Name a pages-articles dump."
        )
    return header if b"</siteinfo>" in header else _SITEINFO


def _read_on(path: Path, start: int) -> Iterator[bytes]:
    """Decompress from a byte to the end of the file, as far as wanted."""
    for step in range(start, path.stat().st_size, _STEP):
        yield from read_range(path, step, step + _STEP)


def _read_pages(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield, in pieces, from the first page that begins in a part to the end of the last one that does."""
    inside, rest = False, b""
    for step in range(start, end, _STEP):
        for piece in read_range(path, step, min(step + _STEP, end)):
            rest += piece
            if not inside:
                place = rest.find(_PAGE)
                inside = place >= 0
                rest = rest[place if inside else 1 - len(_PAGE) :]
            if inside:
                whole, mark, after = rest.rpartition(_PAGE_END)
                if mark:
                    yield whole + mark
                    rest = after
            _check_size(path, rest)
    if not _begins_page(rest):
        return
    owned = len(rest)
    for piece in _read_on(path, end):
        size = len(rest)
        rest += piece
        if size - owned < len(_PAGE) <= len(rest) - owned and not 0 <= rest.find(_PAGE, 0, owned + len(_PAGE) - 1):
            return
        place = rest.find(_PAGE_END, max(0, size - len(_PAGE_END)))
        if place >= 0:
            yield rest[: place + len(_PAGE_END)]
            return
        _check_size(path, rest)
    if _PAGE in rest:
        raise InputError(f"{path}: its last page has no end: cut off? Copy or download it again.")


def _begins_page(rest: bytes) -> bool:
    """Whether a page begins in what follows the last whole page, be it with the first bytes of its tag."""
    return _PAGE in rest or any(rest.endswith(_PAGE[:length]) for length in range(1, len(_PAGE)))


def _check_size(path: Path, page: bytes) -> None:
    if len(page) > _LARGEST_PAGE:
        raise InputError(f"{path}: a page of more than {_LARGEST_PAGE >> 20} MiB: damaged? Copy or download it again.")
