"""Does `corpus format` read a Wikipedia dump as fast per core as wikiextractor itself, every core busy (D6)?

    python -m benchmarks.wikipedia [--pairs 5] [--megabytes 30]

The dump repeats the pages of the shared sample under other titles and numbers, 100 pages a bzip2 stream as Wikimedia
has them.  In each round, in turn: wikiextractor with a process for each core; the articles as we read them, in parts;
and the whole of `corpus format`, which also splits sentences.  Rates are MB of XML a second, of processor time
(children included) and of the clock.  wikiextractor with templates, its default, runs once.  The articles are
compared first.  `format` pays about 1.5 s a process for its imports, which counts on small dumps.
"""

import argparse
import bz2
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bert_pytorch.corpus.inputs.wikipedia import part_ends, read_articles
from tests.support.data import REPOSITORY, data_folder

_PAGES_A_STREAM = 100


def make_dump(path: Path, num_bytes: int) -> int:
    """Write a dump of about `num_bytes` of XML and return how many bytes of XML it has."""
    folder = data_folder()
    if folder is None:
        raise SystemExit("needs the real data: set BERT_PYTORCH_DATA")
    xml = bz2.decompress((folder / "wikipedia" / "enwiki-sample-pages-articles.xml.bz2").read_bytes()).decode()
    header = xml[: xml.index("  <page>")]
    pages = re.findall(r"  <page>.*?</page>\n", xml, re.S)
    copies = max(1, round(num_bytes / len(xml)))
    every = [_renamed(page, copy) for copy in range(copies) for page in pages]
    groups = [every[start : start + _PAGES_A_STREAM] for start in range(0, len(every), _PAGES_A_STREAM)]
    size = 0
    with path.open("wb") as file:
        for text in (header, *map("".join, groups), "</mediawiki>\n"):
            size += len(text.encode())
            file.write(bz2.compress(text.encode()))
    return size


def _renamed(page: str, copy: int) -> str:
    page = page.replace("<title>", f"<title>{copy} ", 1)
    return re.sub(r"<id>(\d+)</id>", lambda match: f"<id>{int(match[1]) + copy * 10**8}</id>", page, count=1)


def wikiextractor(dump: Path, output: str, processes: int, *options: str) -> list[str]:
    """Return the command of a plain run."""
    command = [sys.executable, "-m", "wikiextractor.WikiExtractor", str(dump), "--output", output, "--json", "--quiet"]
    return [*command, "--html-safe", "", "--bytes", "25M", "--processes", str(processes), *options]


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a command; return seconds of processor time and of the clock."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return busy, time.perf_counter() - started


def reading(dump: Path, processes: int) -> list[str]:
    """Return the command that reads articles as `corpus format` does, and nothing more."""
    return [sys.executable, "-m", "benchmarks.wikipedia", "--read", str(dump), "--processes", str(processes)]


def read(dump: Path, processes: int) -> None:
    """Read every part of a dump in a pool of processes."""
    edges = list(itertools.pairwise([0, *part_ends(dump)]))
    with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(_read_part, itertools.repeat(dump), *zip(*edges, strict=True)):
            pass


def _read_part(dump: Path, start: int, end: int) -> int:
    return sum(map(len, read_articles(dump, start, end)))


def articles_agree(dump: Path) -> bool:
    """Whether the articles read in parts are those of a plain run."""
    lines = subprocess.run(wikiextractor(dump, "-", 2, "--no-templates"), check=True, capture_output=True).stdout
    plain = [json.loads(line)["text"] for line in lines.splitlines()]
    edges = itertools.pairwise([0, *part_ends(dump)])
    return plain == [text for start, end in edges for text in read_articles(dump, start, end)]


def measure(pairs: int, megabytes: float) -> dict[str, object]:
    """Measure everything and return the row."""
    from bert_pytorch.corpus.sentences import prepare_splitter  # imports NLTK, which reading does without

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dump = folder / "dump.xml.bz2"
        size = make_dump(dump, int(megabytes * 1e6)) / 1e6
        result: dict[str, object] = {"benchmark": "wikipedia", "megabytes_of_xml": round(size, 1), "cores": cores}
        result["identical"] = articles_agree(dump)
        articles = list(read_articles(dump, 0, part_ends(dump)[0]))
        prepare_splitter(folder, "english", lambda: articles)
        rates: dict[str, list[float]] = {}
        busy, clock = seconds(wikiextractor(dump, str(folder / "templates"), cores))
        result["wikiextractor_templates"] = {"per_core": round(size / busy, 2), "clock": round(size / clock, 2)}
        for number in range(pairs):
            ours = [sys.executable, "-m", "bert_pytorch.corpus", "format", "--input", str(dump), "--output"]
            ours += [f"{folder}/{number}_f", "--processes", str(cores), "--splitter_parameters", f"{folder}/punkt.json"]
            for kind, command in (
                ("wikiextractor", wikiextractor(dump, f"{folder}/{number}_w", cores, "--no-templates")),
                ("articles", reading(dump, cores)),
                ("format", ours),
            ):
                busy, clock = seconds(command)
                rates.setdefault(f"{kind}_per_core", []).append(size / busy)
                rates.setdefault(f"{kind}_clock", []).append(size / clock)
            print({key: round(values[-1], 1) for key, values in rates.items()}, flush=True)
        result |= {key: round(statistics.median(values), 2) for key, values in rates.items()}
        for kind, measured in itertools.product(("articles", "format"), ("per_core", "clock")):
            both = zip(rates[f"{kind}_{measured}"], rates[f"wikiextractor_{measured}"], strict=True)
            result[f"{kind}_over_wikiextractor_{measured}"] = round(statistics.median(a / b for a, b in both), 2)
    return result


def main() -> None:
    """Print the rates of each round and the medians as one JSON line."""
    parser = argparse.ArgumentParser(description="Reading a Wikipedia dump compared.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--read", type=Path, help="only read the articles of this dump")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.read is not None:
        read(options.read, options.processes)
        return
    print(json.dumps(measure(options.pairs, options.megabytes)))


if __name__ == "__main__":
    main()
