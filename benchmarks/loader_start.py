"""How long until the first update, at the start and in mid epoch, and in how much memory, for corpora of any size (D5)?

    python -m benchmarks.loader_start [--work DIR] [--rounds 5] [--shard_megabytes 100] [--global_batch_size 256]

The corpora are simulated: the shared real text is formatted and encoded by the shipped commands (128 tokens, pairs,
dynamic masking), its rows are repeated to fill one shard, and that one file stands under as many names (hard links) as
the tokens need, with a manifest that names them all.  So the number of names, rows and mappings is that of a real
corpus, but every row is in the page cache: what is timed is this program, not a disk.

Each measurement is a process of its own, sizes and positions take turns, and clocks start after the imports: open the
corpus, make the loader, and take one update with its masks (`TrainingLoader.stream`; its two threads make the next one
meanwhile).  The tokens of that update are compared with what h5py reads of the same rows.

Memory is told in two parts: this process's own, and mapped pages of the files, which the page cache may take back at
any time.  Linux counts the latter in every mapping, here many times over for one file, and in pieces of up to 2 MiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.corpus_text import write_corpus
from benchmarks.process_tree import REPOSITORY, corpus_command
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.layouts import MANIFEST
from bert_pytorch.shards.manifest import read_manifest
from bert_pytorch.shards.streams import read_rows
from bert_pytorch.shards.writing import write_parts
from tests.support.data import data_folder

SIZES = {"10M": 10**7, "1B": 10**9, "10B": 10**10}
LENGTH = 128
LATER_UPDATES = 50
"""After the first, before memory is read again."""


def real_set(work: Path) -> Path:
    """Encode the shared text and return the folder of its shards."""
    data = data_folder()
    if data is None:
        raise FileNotFoundError("the shared data are absent: set BERT_PYTORCH_DATA to the folder that holds them")
    write_corpus(work / "text", 12_000_000, seed=0)
    vocabulary = data / "vocab" / "bert-base-uncased-vocab.txt"
    for command in (
        corpus_command("format", "--input", work / "text", "--output", work / "formatted"),
        corpus_command("encode", "--input", work / "formatted", "--output", work / "encoded",
                       "--vocab_file", vocabulary, "--max_seq_len", LENGTH, "--eval_fraction", 0),
    ):  # fmt: skip
        subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next((work / "encoded").glob("sequences_*"))


def one_shard(encoded: Path, path: Path, num_bytes: int) -> int:
    """Repeat the rows of an encoded set in one shard of about `num_bytes`; return its tokens."""
    headers = [read_header(file) for file in sorted(encoded.glob("train_*.hdf5"))]
    rows = sum(header.num_rows for header in headers)
    rounds = max(1, round(num_bytes / sum(header.path.stat().st_size for header in headers)))
    parts = (read_rows(one, np.arange(one.num_rows)) for _ in range(rounds) for one in headers)
    said = {name: headers[0].attributes[name] for name in ("vocabulary_sha256", "lowercase")}
    return write_parts(path, parts, rows * rounds, said).tokens


def simulated_set(encoded: Path, shard: Path, shard_tokens: int, tokens: int, folder: Path) -> tuple[int, int]:
    """Fill a folder with names of one shard and a manifest; return the number of shards and of rows."""
    manifest = read_manifest(encoded)
    assert manifest is not None
    folder.mkdir()
    header, count = read_header(shard), max(1, round(tokens / shard_tokens))
    record = manifest.shards[0].model_copy(
        update={"rows": header.num_rows, "tokens": shard_tokens, "bytes": shard.stat().st_size}
    )
    names = [f"train_{index}.hdf5" for index in range(count)]
    for name in names:
        os.link(shard, folder / name)
    for file in encoded.iterdir():
        if file.suffix in (".txt", ".json") and file.name not in (MANIFEST, "build_log.json"):
            os.link(file, folder / file.name)
    whole = manifest.model_copy(update={"shards": tuple(record.model_copy(update={"name": name}) for name in names)})
    (folder / MANIFEST).write_text(whole.model_dump_json(), encoding="utf-8")
    return count, count * header.num_rows


def measure(folder: Path, share: float, batch: int) -> dict[str, float]:
    """Open a corpus and take the update after `share` of its first epoch, in this process.

    Returns:
        `open_seconds`, `first_update_seconds`, and memory in MiB that was added: `anonymous_mib` is this process's own,
        `file_mib` are mapped pages, which the page cache owns; once more after `LATER_UPDATES` updates.
    """
    config = DataConfig(input_dir=(str(folder),), global_batch_size=batch, local_batch_size=32)
    before = _memory_mib()
    start = time.perf_counter()
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    assert corpora.vocabulary is not None
    maker = BatchMaker(corpora, corpora.vocabulary, policy_for(config, corpora.vocabulary), next_sentence=True)
    loader = TrainingLoader(maker, config)
    opened = time.perf_counter()
    position = int(corpora.num_sequences * share) // batch * batch
    updates = loader.stream(position)
    update = next(updates)
    done = time.perf_counter()
    after = _memory_mib()
    wanted = _tokens_by_h5py(loader, position, read_header(corpora.sources[0].paths[0]))
    assert update.num_tokens == wanted, f"{update.num_tokens} tokens in the update, {wanted} in the file"
    for _ in range(LATER_UPDATES):
        next(updates)
    later = _memory_mib()
    updates.close()
    return {
        "open_seconds": opened - start,
        "first_update_seconds": done - opened,
        "anonymous_mib": after["RssAnon"] - before["RssAnon"],
        "file_mib": after["RssFile"] - before["RssFile"],
        "later_anonymous_mib": later["RssAnon"] - before["RssAnon"],
        "later_file_mib": later["RssFile"] - before["RssFile"],
    }


def _tokens_by_h5py(loader: TrainingLoader, position: int, header: Header) -> int:
    plan = loader.plan(position, 0)
    rows = np.concatenate([samples.indices for samples in plan.micro_batches]) % header.num_rows
    with h5py.File(header.path) as file:
        return int((file["special_token_positions"][:, -1][rows].astype(np.int64) + 1).sum())


def _memory_mib() -> dict[str, float]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[0] in ("RssAnon:", "RssFile:")}


def _measured_apart(folder: Path, share: float, batch: int) -> dict[str, float]:
    words = ["--measure", str(folder), "--share", str(share), "--global_batch_size", str(batch)]
    command = [sys.executable, "-m", "benchmarks.loader_start", *words]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(work: Path, rounds: int, num_bytes: int, batch: int) -> dict[str, object]:
    """Make the corpora below `work`, measure them in turns and return the medians."""
    encoded, shard = real_set(work), work / "shard.hdf5"
    tokens = one_shard(encoded, shard, num_bytes)
    made = {name: simulated_set(encoded, shard, tokens, size, work / name) for name, size in SIZES.items()}
    print(f"one file of {shard.stat().st_size / 1e6:.0f} MB, {tokens / 1e6:.1f} M tokens, under all names")
    found: dict[tuple[str, float], list[dict[str, float]]] = {(name, share): [] for name in SIZES for share in (0, 0.5)}
    for _ in range(rounds):
        for (name, share), results in found.items():
            results.append(_measured_apart(work / name, share, batch))
    table = []
    for (name, share), results in found.items():
        medians = {key: round(statistics.median(result[key] for result in results), 4) for key in results[0]}
        seconds = [result["open_seconds"] + result["first_update_seconds"] for result in results]
        medians |= {"seconds": round(statistics.median(seconds), 4), "worst_seconds": round(max(seconds), 4)}
        shards, rows = made[name]
        table.append({"tokens": name, "shards": shards, "rows": rows, "epoch_share": share, **medians})
        print(
            f"{name:>4} tokens, {shards:4} shards, {rows:>11,} rows, at {share:3.0%} of the epoch: "
            f"{1e3 * medians['seconds']:6.1f} ms to the update (worst {1e3 * medians['worst_seconds']:6.1f}; opening "
            f"{1e3 * medians['open_seconds']:5.1f}); memory +{medians['anonymous_mib']:5.1f} MiB own, "
            f"+{medians['file_mib']:6.1f} mapped; after {LATER_UPDATES} more +{medians['later_anonymous_mib']:5.1f}, "
            f"+{medians['later_file_mib']:6.1f}"
        )
    return {
        "benchmark": "loader_start",
        "simulated_by": "hard links of one real shard",
        "shard_bytes": shard.stat().st_size,
        "global_batch_size": batch,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "measured": table,
    }


def main() -> None:
    """Print one row a size and position, then one JSON line."""
    parser = argparse.ArgumentParser(description="Time from the construction of a loader to its first update.")
    parser.add_argument("--work", type=Path, help="an empty folder; a temporary one by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shard_megabytes", type=float, default=100)
    parser.add_argument("--global_batch_size", type=int, default=256)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.share, options.global_batch_size)))
        return
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        num_bytes = int(options.shard_megabytes * 1e6)
        print(json.dumps(compare(Path(work), options.rounds, num_bytes, options.global_batch_size)))


if __name__ == "__main__":
    main()
