"""C4: web text as gzipped JSON lines, in shards of equal size (Raffel et al. 2020, prepared by AllenAI)."""

import re
from collections.abc import Iterator
from typing import Literal

from bert_pytorch.downloads.source import Download, DownloadConfig, Source, mirrored
from bert_pytorch.remote.files import RemoteFile

_BASE = "https://huggingface.co/datasets/allenai/c4/resolve/main"
_SHARDS = {
    ("en", "train"): 1024,
    ("en", "validation"): 8,
    ("en.noblocklist", "train"): 1024,
    ("en.noblocklist", "validation"): 8,
    ("realnewslike", "train"): 512,
    ("realnewslike", "validation"): 1,
}


class C4Config(DownloadConfig):
    """Fetch shards of C4 (JSON lines, gzipped), which `corpus format` reads."""

    variant: Literal["en", "en.noblocklist", "realnewslike"] = "en"
    """Which of its cleanings."""
    split: Literal["train", "validation"] = "train"
    """Training or held-out text."""
    shards: str = "0"
    """Which shards: a number, a range such as 0-3, or several with commas."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        last = _SHARDS[self.variant, self.split] - 1
        spans = [re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", span.strip()) for span in self.shards.split(",")]
        if any(not span or not int(span[1]) <= int(span[2] or span[1]) <= last for span in spans):
            yield f"--shards: found {self.shards!r}, wanted numbers from 0 to {last}, such as 0-3 or 0,7."

    @property
    def shard_numbers(self) -> list[int]:
        """The shards asked for, in order, each once."""
        spans = [span.strip().partition("-") for span in self.shards.split(",")]
        return sorted({n for first, _, last in spans for n in range(int(first), int(last or first) + 1)})


def plan_c4(config: C4Config) -> list[Download]:
    """Return the shards; called .jsonl.gz here, since that is what they hold."""
    total = _SHARDS[config.variant, config.split]
    names = [f"c4-{config.split}.{number:05d}-of-{total:05d}" for number in config.shard_numbers]
    return [
        Download(
            RemoteFile(
                mirrored((_BASE,), config, f"{config.variant}/{name}.json.gz"), f"{config.variant}/{name}.jsonl.gz"
            )
        )
        for name in names
    ]


C4 = Source(
    "c4",
    "cleaned English web pages of April 2019, by shard",
    "ODC-BY; Common Crawl's terms of use",
    "0.32 GB a shard, 1024 of them",
    "--shards 0-3",
    C4Config,
    plan_c4,
)
