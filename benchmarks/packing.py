"""How much of rows of fixed length is padding once sequences share them, and how long does planning take (D7)?

    python -m benchmarks.packing [--histogram FILE …] [--sequences 1000000]

Packed are about a million sequences of up to 512 tokens, in the shape of all of Wikipedia (the curve of
`tests.support.lengths`), and in those that the shared text (BERT_PYTORCH_DATA) has once it is encoded here, Wikipedia's
articles alone and all of it: few and long ones, many of which fit with no other, which `bound` tells.  --histogram adds
others: a file of whole numbers, sequences of length 1, 2, … (or a manifest.json).  Times are of one core, least of 3.

waste   share of the rows' cells that hold padding
bound   what no packing can be under: rows are at least tokens / L, and the sequences longer than L / 2, and n / K
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bert_pytorch.data.row_packing import pack_lengths
from tests.support.data import data_folder
from tests.support.lengths import wikipedia_histogram

SLOTS = (3, 8, None)
REPEATS = 3
NVIDIA_WASTE = 0.0067
"""Of NVIDIA's offline packing on Wikipedia, GOALS.md."""


def main() -> None:
    """Print one row a histogram and number of slots, then one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--histogram", type=Path, nargs="*", default=[])
    parser.add_argument("--sequences", type=int, default=1_000_000)
    options = parser.parse_args()
    histograms = {"wikipedia-shaped": wikipedia_histogram(options.sequences)}
    histograms |= {path.stem: read_histogram(path) for path in options.histogram}
    wikipedia = data_folder() / "wikipedia/enwiki-sample-pages-articles.xml.bz2"
    histograms["sample of Wikipedia"] = encoded([wikipedia])
    histograms["sample and text"] = encoded([wikipedia, data_folder() / "text"])
    rows = [
        measure(name, scaled(counts, options.sequences), slots)
        for name, counts in histograms.items()
        for slots in SLOTS
    ]
    print(json.dumps({"benchmark": "packing", "goal": "D7", "nvidia_waste": NVIDIA_WASTE, "rows": rows}))


def measure(name: str, histogram: np.ndarray, slots: int | None) -> dict[str, object]:
    """Pack sequences of a histogram, in no order, and print the row."""
    length = len(histogram) - 1
    lengths = np.random.default_rng(0).permutation(np.repeat(np.arange(length + 1), histogram))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        plan = pack_lengths(lengths, length, slots)
        seconds.append(time.perf_counter() - started)
    tokens = int(lengths.sum())
    least = max(tokens / length, int(histogram[length // 2 + 1 :].sum()), len(lengths) / (slots or length))
    row = {
        "histogram": name,
        "sequences": len(lengths),
        "fill": round(tokens / (len(lengths) * length), 4),
        "slots": slots,
        "sequences_a_row": round(len(lengths) / plan.num_rows, 4),
        "waste": round(1 - tokens / (plan.num_rows * length), 6),
        "bound": round(1 - tokens / (least * length), 6),
        "seconds": round(min(seconds), 4),
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def scaled(histogram: np.ndarray, total: int) -> np.ndarray:
    """Return the same shape with `total` sequences; every length that occurs often enough stays."""
    return np.diff(np.rint(np.cumsum(histogram) * (total / histogram.sum())), prepend=0).astype(np.int64)


def read_histogram(path: Path) -> np.ndarray:
    """Read the training histogram of a manifest, or counts of lengths 1, 2, …."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return np.array(json.loads(text)["train"]["length_histogram"], np.int64)
    return np.array([0, *map(int, re.findall(r"\d+", text))], np.int64)


def encoded(texts: list[Path]) -> np.ndarray:
    """Encode texts at 512 tokens with Google's vocabulary and return the lengths' histogram."""
    corpus = [sys.executable, "-m", "bert_pytorch.corpus"]
    with tempfile.TemporaryDirectory() as folder:
        text, shards = Path(folder, "text"), Path(folder, "shards")
        vocabulary = data_folder() / "vocab/bert-base-uncased-vocab.txt"
        run([*corpus, "format", "--input", *map(str, texts), "--output", str(text)])
        words = ["--vocab_file", str(vocabulary), "--max_seq_len", "512"]
        run([*corpus, "encode", "--input", str(text), "--output", str(shards), *words])
        (manifest,) = shards.glob("*/manifest.json")
        return read_histogram(manifest)


def run(words: list[str]) -> None:
    """Run a command; what it says is shown where it fails."""
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)


if __name__ == "__main__":
    main()
