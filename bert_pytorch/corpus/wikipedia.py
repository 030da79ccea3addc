"""Wikipedia dumps through wikiextractor 3.1.0: a separate program (it is AGPL), never imported."""

import importlib.util
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from bert_pytorch.errors import InputError, MissingDependencyError
from bert_pytorch.files import TEMPORARY_PREFIX

logger = logging.getLogger(__name__)

_BYTES_A_FILE = "25M"
_LINES_OF_FAILURE = 5


def extract_dump(dump: Path, folder: Path, processes: int) -> list[Path]:
    """Extract the articles of a dump as JSON lines (fields `title`, `text` …), and list the files made.

    Args:
        dump: `….xml.bz2`.
        folder: whole or absent afterwards; one that is there already is used as it is.
        processes: wikiextractor's own; they do not change its output.

    Raises:
        MissingDependencyError: if wikiextractor is not installed.
        InputError: if it fails.
    """
    if not folder.is_dir():
        if importlib.util.find_spec("wikiextractor") is None:
            raise MissingDependencyError(
                f"{dump}: reading a Wikipedia dump needs wikiextractor, which is not installed. "
                "Install it: pip install -r requirements-extras.txt"
            )
        temporary = folder.with_name(TEMPORARY_PREFIX + folder.name)
        shutil.rmtree(temporary, ignore_errors=True)
        _run(dump, temporary, processes)
        temporary.rename(folder)
    files = sorted(file for file in folder.rglob("wiki_*") if file.stat().st_size)
    if not files:
        logger.warning("%s: wikiextractor found no article in it; is it a pages-articles dump?", dump)
    return files


def _run(dump: Path, folder: Path, processes: int) -> None:
    logger.info("%s: wikiextractor is extracting its articles", dump)
    command = [sys.executable, "-m", "wikiextractor.WikiExtractor", str(dump)]
    command += ["--json", "--html-safe", "", "--bytes", _BYTES_A_FILE]  # "" leaves & < > as they are
    command += ["--processes", str(processes), "--output", str(folder), "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        said = "\n  ".join(result.stderr.strip().splitlines()[-_LINES_OF_FAILURE:])
        raise InputError(
            f"{dump}: wikiextractor failed with exit code {result.returncode}. Is the dump whole? It said:\n  {said}"
        )
