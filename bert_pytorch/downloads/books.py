"""Books: the archives known as BooksCorpus, and Project Gutenberg's texts."""

import contextlib
import html.parser
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from bert_pytorch.downloads.source import Download, DownloadConfig, Source, mirrored
from bert_pytorch.errors import InputError
from bert_pytorch.remote.errors import TransferError
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.http import check_http_url, is_http_url, read_text
from bert_pytorch.remote.http_errors import show_url


class _Edition(NamedTuple):
    urls: tuple[str, ...]
    size: int
    sha256: str


# Sizes and checksums: dataset_infos.json of bookcorpusopen and bookcorpus in huggingface/datasets.
_EDITIONS = {
    "books1": _Edition(
        (
            "https://the-eye.eu/public/AI/pile_preliminary_components/books1.tar.gz",
            "https://battle.shawwn.com/sdb/books1/books1.tar.gz",
        ),
        2_404_269_430,
        "e3c993cc825df2bdf0f78ef592f5c09236f0b9cd6bb1877142281acc50f446f9",
    ),
    "sentences": _Edition(
        ("https://storage.googleapis.com/huggingface-nlp/datasets/bookcorpus/bookcorpus.tar.bz2",),
        1_179_510_242,
        "03a29333b2b35e98a375b6ad7d2f1651835655cd348fb89c864136bce69a964c",
    ),
}


class BooksCorpusConfig(DownloadConfig):
    """Fetch and unpack one of the published archives of free books; `corpus format` reads the folder."""

    edition: Literal["books1", "sentences"] = "books1"
    """books1: 17,868 books, one a file, as written; sentences: 74 million lower-cased sentences, one a line, with no
    mark between books."""
    any_archive: bool = False
    """With --mirror: take the archive there whatever its size and checksum."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.any_archive and not self.mirror:
            yield "--any_archive is for one of your own: name its place with --mirror."


def plan_bookscorpus(config: BooksCorpusConfig) -> list[Download]:
    """Return the edition's archive; a mirror holds it by its file name."""
    edition = _EDITIONS[config.edition]
    name = edition.urls[0].rpartition("/")[2]
    urls = mirrored((), config, name) or edition.urls
    known = (None, None) if config.any_archive else (edition.size, f"sha256:{edition.sha256}")
    return [Download(RemoteFile(urls, name, *known), config.edition)]


def _hide_lists_of_addresses(folder: Path) -> None:
    """The archive's list of where its books came from is no book."""
    for path in folder.glob("books1/*urls*.txt"):
        path.rename(path.with_suffix(".list"))


class GutenbergConfig(DownloadConfig):
    """Fetch books from Project Gutenberg, or every text that a page of links names."""

    ids: tuple[int, ...] = ()
    """Numbers of books: 1342 is Pride and Prejudice."""
    index: str | None = None
    """Address of a page (a mirror's folder): every link to a .txt below it is fetched."""
    list_file: Path | None = None
    """File with one address a line; those that start with # are left out."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.ids and self.index is None and self.list_file is None:
            yield "name books: --ids 1342 84, --index ADDRESS or --list_file FILE."
        if self.index is not None and not is_http_url(self.index):
            yield f"--index: found {show_url(self.index)!r}, wanted an address: https://… or http://…."
        if any(number < 1 for number in self.ids):
            yield "--ids: wanted whole numbers > 0."


def plan_gutenberg(config: GutenbergConfig) -> list[Download]:
    """Return the books' files."""
    files = [
        RemoteFile(
            mirrored(("https://www.gutenberg.org",), config, f"cache/epub/{number}/pg{number}.txt"), f"pg{number}.txt"
        )
        for number in dict.fromkeys(config.ids)
    ]
    if config.index is not None:
        files += _linked(config.index, config.timeout_seconds)
    if config.list_file is not None:
        files += [_named(url) for url in _lines(config.list_file)]
    return [Download(file) for file in dict.fromkeys(files)]


def _linked(index: str, timeout: float) -> list[RemoteFile]:
    """Return the .txt files that a page links to, of those below the page's own folder."""
    base = urljoin(index, ".")
    page = _Links()
    try:
        page.feed(read_text(index, timeout_seconds=timeout))
    except TransferError as error:
        raise type(error)(
            f"{error} By hand: put the texts into a folder and give it to `python -m bert_pytorch.corpus format "
            "--input DIR`; or list addresses that can be reached in a file, one a line, for --list_file."
        ) from error
    urls = sorted({url for link in page.links for url in _joined(index, link)})
    inside = [url for url in urls if url.startswith(base) and re.search(r"\.txt(\.gz|\.bz2)?$", urlsplit(url).path)]
    if not inside:
        raise InputError(
            f"{show_url(index)}: this page links to no .txt below {show_url(base)}. Give a page that does."
        )
    folder = _path(base)
    return [RemoteFile((url,), _path(url).removeprefix(folder)) for url in inside]


def _joined(index: str, link: str) -> Iterator[str]:
    with contextlib.suppress(ValueError):  # people write href="http://[...]"
        yield urldefrag(urljoin(index, link)).url


def _path(url: str) -> str:
    return unquote(urlsplit(url).path)


def _named(url: str) -> RemoteFile:
    check_http_url(url)
    return RemoteFile((url,), posixpath.basename(_path(url)))


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start:,}; wanted one address a line. Save it as UTF-8."
        ) from error
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


BOOKSCORPUS = Source(
    "bookscorpus",
    "free books of a self-publishing site: BooksCorpus as rebuilt in 2020, or as sentences",
    "of each author; no licence to pass on: check before use",
    "2.4 GB (books1), 1.2 GB (sentences)",
    "--edition books1",
    BooksCorpusConfig,
    plan_bookscorpus,
    _hide_lists_of_addresses,
)
GUTENBERG = Source(
    "gutenberg",
    "books of Project Gutenberg by number, or all texts that a page or list names",
    "public domain in the US; each text ends with its licence",
    "0.4 MB a book",
    "--ids 1342 84",
    GutenbergConfig,
    plan_gutenberg,
)
