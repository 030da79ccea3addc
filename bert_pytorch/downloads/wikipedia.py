"""Wikipedia's dumps: of any language and date, verified by the checksums published with them."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.downloads.source import Download, DownloadConfig, Source, mirrored
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_json
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.http import read_text
from bert_pytorch.remote.paths import PARTS_FOLDER

logger = logging.getLogger(__name__)

_BASES = (
    "https://dumps.wikimedia.org",
    "https://dumps.wikimedia.your.org",
    "https://ftp.acc.umu.se/mirror/wikimedia.org/dumps",
)
_FILE = "pages-articles.xml.bz2"
_OTHER_NAMES = {"be-tarask": "be_x_old", "yue": "zh_yue", "nan": "zh_min_nan", "lzh": "zh_classical", "nb": "no"}
"""Wikipedias whose database is called otherwise than their language."""


class WikipediaConfig(DownloadConfig):
    """Fetch the articles of one Wikipedia as a dump (….xml.bz2), which `corpus format` reads."""

    language: str = "en"
    """Language as in the address, such as en, de, zh-yue, simple."""
    date: str = "latest"
    """Date of the dump, such as 20261101, or latest; latest keeps to the date first found until --overwrite."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", self.language):
            yield f"--language: found {self.language!r}, wanted a language as in the address, such as en or zh-yue."
        if not re.fullmatch(r"latest|\d{8}", self.date):
            yield f"--date: found {self.date!r}, wanted latest or a date such as 20261101."

    @property
    def wiki(self) -> str:
        """Name of the database, such as enwiki."""
        return _OTHER_NAMES.get(self.language, self.language).replace("-", "_") + "wiki"


class Dump(NamedTuple):
    """Which dump was found."""

    date: str
    """Eight digits, or `latest` where nobody could be asked."""
    sha1: str | None


def plan_wikipedia(config: WikipediaConfig) -> list[Download]:
    """Return the dump's file; asks for its date and checksum unless an earlier call did."""
    record = config.folder / PARTS_FOLDER / f".{config.wiki}-{config.date}.json"
    dump = None if config.overwrite else _known(config, record)
    if dump is None:
        dump = _ask(config)
        if dump.sha1 is not None:
            atomic_write_json(record, dump._asdict())
    name = f"{config.wiki}-{dump.date}-{_FILE}"
    checksum = None if dump.sha1 is None else f"sha1:{dump.sha1}"
    return [
        Download(RemoteFile(mirrored(_BASES, config, f"{config.wiki}/{dump.date}/{name}"), name, checksum=checksum))
    ]


def _known(config: WikipediaConfig, record: Path) -> Dump | None:
    """Return the dump that an earlier call found, or for `latest` the one a person put there."""
    found = None
    try:
        found = Dump(**json.loads(record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        pass
    if found is not None:
        if config.date == "latest":
            logger.info("the dump of %s, as found earlier; --overwrite asks for a newer one", found.date)
        return found
    if config.date == "latest" and (config.folder / f"{config.wiki}-latest-{_FILE}").exists():
        return Dump("latest", None)
    return None


def _ask(config: WikipediaConfig) -> Dump:
    """Ask the mirrors for the list of checksums, which also tells the date of the latest dump."""
    for url in mirrored(_BASES, config, f"{config.wiki}/{config.date}/{config.wiki}-{config.date}-sha1sums.txt"):
        try:
            sums = read_text(url, timeout_seconds=config.timeout_seconds)
        except InputError as error:  # told again where fetching fails
            logger.info("%s", error)
            continue
        found = re.search(rf"^([0-9a-f]{{40}}) +{config.wiki}-(\d{{8}})-{re.escape(_FILE)}$", sums, re.MULTILINE)
        if found is not None:
            return Dump(found.group(2), found.group(1))
        logger.info("%s: %s is not in this list", url, _FILE)
    logger.warning("no checksum of this dump could be had: only its size will be verified")
    return Dump(config.date, None)


WIKIPEDIA = Source(
    "wikipedia",
    "articles of the Wikipedia of any language, as a dump",
    "CC BY-SA 4.0 and GFDL",
    "en 24 GB, de 7.5 GB, simple 0.3 GB",
    "--language en --date latest",
    WikipediaConfig,
    plan_wikipedia,
)
