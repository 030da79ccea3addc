"""Each stage of corpus building beside its peers, on the same files in one run (D1, D2, D3, D6, D8 of the goals).

    python -m benchmarks.corpus [--pairs 5] [--megabytes 64] [--dump_megabytes 100] [--only D2]

D1, D8 and D6 are those of `benchmarks.tokenizers`, `benchmarks.sentences` and `benchmarks.wikipedia`.  D2 is `corpus
encode` as a program with one process, start and finish included: MB of formatted text a second of processor time
(the machine is shared), the worker's peak memory beside it; the same with `tokenizers` in tokie's place is its peer.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks import sentences, tokenizers, wikipedia
from benchmarks.corpus_text import write_corpus
from benchmarks.process_tree import Watched, corpus_command, watch
from tests.support.data import data_folder

SETS: dict[str, list[object]] = {
    "128, pairs": ["--max_seq_len", 128],
    "128 and 512, pairs": ["--max_seq_len", 128, 512, "--short_seq_prob", 0.1, 0],
    "512, full sentences": ["--max_seq_len", 512, "--sequences", "full_sentences", "--short_seq_prob", 0],
    "128, static, 5 times": ["--max_seq_len", 128, "--masking", "static", "--max_predictions_per_seq", 20,
                             "--dupe_factor", 5],
}  # fmt: skip
REFERENCE = "128, pairs, through tokenizers"


def processor_seconds(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, Watched]:
    """Run a program; returns the processor time of its whole family, and how it went."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = watch(command, environment=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), run


def encoding_rows(work: Path, pairs: int, megabytes: int) -> dict[str, object]:
    """Measure `corpus encode` on formatted text: D2 and, of its peak memory, D3."""
    write_corpus(work / "raw", megabytes * 1_000_000, seed=1)
    formatted, encoded = work / "formatted", work / "encoded"
    watch(corpus_command("format", "--input", work / "raw", "--output", formatted))
    size = sum(path.stat().st_size for path in formatted.glob("*.txt")) / 1e6
    folder = data_folder()
    assert folder is not None
    words = ["--input", formatted, "--output", encoded, "--vocab_file", folder / "vocab/bert-base-uncased-vocab.txt"]
    rates: dict[str, list[float]] = {name: [] for name in [*SETS, REFERENCE]}
    memory: dict[str, float] = {}
    for _ in range(pairs):
        for name in rates:
            command = corpus_command("encode", *words, "--processes", 1, *SETS.get(name, SETS["128, pairs"]))
            slow = {"BERT_PYTORCH_TOKENIZER": "reference"} if name == REFERENCE else None
            seconds, run = processor_seconds(command, slow)
            shutil.rmtree(encoded)
            rates[name].append(size / seconds)
            memory[name] = max(memory.get(name, 0.0), run.main_mib)
    for name, found in rates.items():
        print(f"D2 encode {name}: {statistics.median(found):.1f} MB/s/core, peak {memory[name]:.0f} MiB", flush=True)
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates["128, pairs"], rates[REFERENCE], strict=True)]
    return {
        "D2_mb_s_core": medians,
        "D2_over_tokenizers": round(statistics.median(ratios), 2),
        "D3_peak_mib": {name: round(found) for name, found in memory.items()},
        "megabytes": round(size),
    }


def main() -> None:
    """Print each stage's rates and one JSON line."""
    parser = argparse.ArgumentParser(description="Corpus building, stage by stage, beside its peers.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--dump_megabytes", type=int, default=100, help="of XML, for D6")
    parser.add_argument("--only", choices=["D1", "D2", "D6", "D8"], help="one row; D2 brings D3")
    options = parser.parse_args()
    result: dict[str, object] = {"benchmark": "corpus", "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "D1"):
            result["D1"] = tokenizers.measure(seconds=40)
        if options.only in (None, "D8"):
            result["D8"] = sentences.measure(options.pairs, 8)
        if options.only in (None, "D6"):
            result["D6"] = wikipedia.measure(options.pairs, options.dump_megabytes)
        if options.only in (None, "D2"):
            result["D2"] = encoding_rows(Path(folder), options.pairs, options.megabytes)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
