"""How fast is text encoded on one core, by tokie and by the reference, `tokenizers`, and are the ids the same (D1)?

    python -m benchmarks.tokenizers [--seconds 60] [--processor 0]

Needs the real data (BERT_PYTORCH_DATA).  The process is pinned to one processor; pairs are interleaved, each on another
part of the text; ratios are of one pair, and medians are reported.  Rates are MB of UTF-8 a second of the clock, and of
processor time, which a busy neighbour on the same core disturbs less.
"""

import argparse
import bz2
import html
import json
import os
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_pytorch.tokenization.fast import FastEncoder
from bert_pytorch.tokenization.flat import FlatTokens, encode_flat_reference
from bert_pytorch.tokenization.tokenizer import load_tokenizer
from tests.support.data import data_folder

PAIRS = 5
REFERENCE_RATE = 2e6
REPEATS = 4
"""Of the fast encoder within a pair: once would take too short a time."""
ROBERTA_NAMES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def sources(data: Path) -> dict[str, list[str]]:
    """Return the shared text by source, as lines."""
    prose = [line for path in sorted(data.glob("text/*/*.txt")) for line in path.read_text("utf-8").split("\n")]
    dump = bz2.decompress((data / "wikipedia/enwiki-sample-pages-articles.xml.bz2").read_bytes()).decode()
    pages = re.findall(r"<text[^>]*>(.*?)</text>", dump, re.DOTALL)
    return {
        "text": prose,
        "wikitext-2": (data / "wikitext-2/valid.txt").read_text("utf-8").split("\n"),
        "wikipedia": [line for page in pages for line in html.unescape(page).split("\n")],
    }


def encoders(data: Path, lines: Sequence[str]) -> dict[str, tuple[FastEncoder | None, tokenizers.Tokenizer]]:
    """Return both encoders of each kind: Google's WordPiece, and byte-level BPE trained on part of the text."""
    wordpiece = load_tokenizer(data / "vocab/bert-base-uncased-vocab.txt")._backend
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=30_000, special_tokens=ROBERTA_NAMES, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(lines[::3], trainer)
    return {
        "wordpiece": (FastEncoder.from_tokenizer_json(wordpiece.to_str(), "wordpiece"), wordpiece),
        "bpe": (FastEncoder.from_tokenizer_json(bpe.to_str(), "bpe"), bpe),
    }


def compare(fast: FastEncoder, reference: tokenizers.Tokenizer, lines: list[str], seconds: float) -> dict[str, object]:
    """Encode parts of some lines with both, in turn."""
    sizes = np.cumsum([len(line.encode()) for line in lines])
    share = min(int(sizes[-1]), int(seconds / PAIRS * REFERENCE_RATE))
    rows = []
    for pair in range(PAIRS):
        start = int(np.searchsorted(sizes, (sizes[-1] - share) * pair / max(1, PAIRS - 1)))
        stop = int(np.searchsorted(sizes, (sizes[start - 1] if start else 0) + share, "right"))
        part = lines[start : max(stop, start + 1)]
        megabytes = sum(len(line.encode()) for line in part) / 1e6
        quick, clock, processor = timed(fast.encode_flat, part, REPEATS)
        slow, slow_clock, slow_processor = timed(partial(encode_flat_reference, reference), part, 1)
        identical = all(np.array_equal(a, b) for a, b in zip(quick, slow, strict=True))
        seconds_each = (clock, processor, slow_clock, slow_processor)
        rows.append((*(megabytes / each for each in seconds_each), identical))
    columns = list(zip(*rows, strict=True))
    return {
        "fast": round(statistics.median(columns[0]), 1),
        "fast_processor_time": round(statistics.median(columns[1]), 1),
        "reference": round(statistics.median(columns[2]), 2),
        "reference_processor_time": round(statistics.median(columns[3]), 2),
        "ratio": round(statistics.median(row[0] / row[2] for row in rows), 1),
        "routed_share": round(float(np.mean(fast._unproven_texts(lines))), 5),
        "identical": all(columns[4]),
    }


def timed(
    encode: Callable[[Sequence[str]], FlatTokens], texts: Sequence[str], repeats: int
) -> tuple[FlatTokens, float, float]:
    """Encode some times and return the tokens, and seconds of the clock and of the processor each time took."""
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        tokens = encode(texts)
    return tokens, (time.perf_counter() - clock) / repeats, (time.process_time() - processor) / repeats


def measure(seconds: float, processor: int = 0) -> dict[str, object]:
    """Print a row for each kind and source and return all; this process runs on one processor meanwhile."""
    data = data_folder()
    if data is None:
        raise SystemExit("error: the real data is absent; set BERT_PYTORCH_DATA.")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = sources(data)
    made = encoders(data, texts["text"])
    result: dict[str, object] = {"id": "D1", "unit": "MB/s/core", "pairs": PAIRS}
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        for kind, (fast, reference) in made.items():
            if fast is None:
                raise SystemExit("error: tokie cannot be used here; see the log.")
            for name, lines in texts.items():
                row = compare(fast, reference, lines, seconds / len(made) / len(texts))
                print(f"{kind:10} {name:11} {row}")
                result[f"{kind} {name}"] = row
    finally:
        os.sched_setaffinity(0, processors)
    result["identical"] = all(row["identical"] for row in result.values() if isinstance(row, dict))
    result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def main() -> None:
    """Print a row for each kind and source, then all as one JSON line."""
    parser = argparse.ArgumentParser(description="tokie and tokenizers compared.")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long the reference runs in all")
    parser.add_argument("--processor", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.processor)))


if __name__ == "__main__":
    main()
