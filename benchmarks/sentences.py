"""How fast does raw text become one sentence a line, per core (D8), and do the borders agree?

    python -m benchmarks.sentences [--pairs 5] [--megabytes 8]

Text: the shared speeches, reviews and articles.  Every splitter gets the same paragraphs, NLTK's own too, in turn
within each round; `corpus format` does all of reading JSON lines, cleaning, splitting and writing, in one process.
Rates are of processor time, medians of the rounds; the sentences of ours and of NLTK are compared one by one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nltk.redos
from nltk.tokenize.punkt import PunktSentenceTokenizer

from bert_pytorch.corpus import punkt
from bert_pytorch.corpus.formatting import FormatConfig, format_text
from bert_pytorch.corpus.sentences import prepare_splitter
from tests.support.data import data_folder

Split = Callable[[str], list[str]]


def documents(num_bytes: int) -> list[str]:
    """Return real documents, one of each kind in turn, up to `num_bytes`."""
    folder = data_folder()
    if folder is None:
        raise SystemExit("needs the real data: set BERT_PYTORCH_DATA")
    kinds = [sorted((folder / "text" / kind).glob("*.txt")) for kind in ("state_union", "inaugural", "movie_reviews")]
    wikitext = (folder / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    chosen, size = [wikitext], len(wikitext.encode())
    for place in range(max(map(len, kinds))):
        for kind in kinds:
            if place < len(kind) and size < num_bytes:
                chosen.append(kind[place].read_text(encoding="utf-8"))
                size += len(chosen[-1].encode())
    return chosen


def splitters(folder: Path) -> Iterator[tuple[str, Split]]:
    """Yield NLTK's own splitter with the parameters in `folder`, ours, and nupunkt's where they are installed."""
    parameters = punkt.load(folder / "punkt.json")
    nltk.redos.DEFAULT_TIMEOUT = None
    yield "nltk_own", PunktSentenceTokenizer(parameters).tokenize
    yield "ours", punkt.FastPunkt(parameters).split
    for module in ("nupunkt", "nupunkt_rs"):
        try:
            yield module, __import__(module).sent_tokenize
        except ImportError:
            continue


def borders(split: Split, paragraphs: list[str]) -> set[tuple[int, int]]:
    """Return the paragraph and the number of characters other than white space before each border within it."""
    found = set()
    for number, paragraph in enumerate(paragraphs):
        place = 0
        for sentence in split(paragraph)[:-1]:
            place += len("".join(sentence.split()))
            found.add((number, place))
    return found


def format_rate(texts: list[str], splitter: str, parameters: Path) -> float:
    """Return MB of text a second of processor time of one process, from JSON lines to formatted files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / "in.jsonl").write_text(lines, encoding="utf-8")
        settings = {"splitter_parameters": parameters} if splitter == "nltk" else {}
        config = FormatConfig(
            input=(folder / "in.jsonl",), output=folder / "out", processes=1, splitter=splitter, **settings
        )  # type: ignore[arg-type]
        started = time.process_time()
        format_text(config)
        return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - started)


def measure(pairs: int, megabytes: float) -> dict[str, object]:
    """Measure everything and return the row."""
    texts = documents(int(megabytes * 1e6))
    paragraphs = [words for text in texts for line in text.split("\n") if (words := " ".join(line.split()))]
    size = sum(len(paragraph.encode()) for paragraph in paragraphs) / 1e6
    result: dict[str, object] = {"benchmark": "sentences", "megabytes": round(size, 1), "unit": "MB/s/core"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        prepare_splitter(folder, "english", lambda: texts)
        result["learning"] = round(size / (time.process_time() - started), 2)
        rates: dict[str, list[float]] = {}
        for _ in range(pairs):
            for splitter, split in splitters(folder):
                split("Words. More words.")
                started = time.process_time()
                for paragraph in paragraphs:
                    split(paragraph)
                rates.setdefault(splitter, []).append(size / (time.process_time() - started))
            for splitter in ("nltk", "nupunkt", "newline"):
                rates.setdefault(f"format_{splitter}", []).append(format_rate(texts, splitter, folder / "punkt.json"))
            print({key: round(values[-1], 1) for key, values in rates.items()}, flush=True)
        result |= {key: round(statistics.median(values), 1) for key, values in rates.items()}
        ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["nltk_own"], strict=True)]
        result["ours_over_nltk"] = round(statistics.median(ratios), 2)
        split = dict(splitters(folder))
        wanted = borders(split["nltk_own"], paragraphs)
        for splitter in list(split)[1:]:
            found = borders(split[splitter], paragraphs)
            result[f"border_f1_{splitter}"] = round(2 * len(found & wanted) / (len(found) + len(wanted)), 4)
        result["identical"] = all(split["ours"](words) == split["nltk_own"](words) for words in paragraphs)
    return result


def main() -> None:
    """Print the rates of each round and the medians as one JSON line."""
    parser = argparse.ArgumentParser(description="Sentence splitters compared.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=8)
    options = parser.parse_args()
    print(json.dumps(measure(options.pairs, options.megabytes)))


if __name__ == "__main__":
    main()
