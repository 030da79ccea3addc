"""A random sample of whole documents of formatted text, in the layout of formatted text: the stage `sample`."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.plan import find_documents, text_files
from bert_pytorch.corpus.pool import PoolConfig
from bert_pytorch.errors import InputError
from bert_pytorch.files import exclusive_lock

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
            yield f"found {found}, wanted one of {', '.join(f'--{name}' for name in _AMOUNTS)}: how large is the sample?"
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
    table = find_documents(text_files(config.input), config)
    if table.num_documents == 0:
        raise InputError(f"{', '.join(map(str, config.input))}: there is no text in it. Give formatted text.")
    settings: dict[str, Any] = {name: getattr(config, name) for name in (*_AMOUNTS, "shard_bytes", "seed")}
    fingerprint = fingerprint_of(_VERSION, settings, table.sha256)
    build = Build(folder, RECORD, fingerprint, settings, ("sample_*.txt",))
    with exclusive_lock(folder, "builds"):
        if config.overwrite:
            build.clear()
        if not build.needs_work() and _all_there(folder, build):
            logger.info("%s: finished already, nothing to do", folder)
            return folder
        with build.in_work():
            chosen = table.take(choose(table, config))
            shard_bytes = _amount(config.shard_bytes, "shard_bytes")
            assert shard_bytes is not None
            counts = _write(chosen, folder, shard_bytes, config)
            build.finish({"settings": settings, "fingerprint": fingerprint, "input_sha256": table.sha256, **counts})
    return folder
