"""How many real tokens a second does the loader make ready on one core (D4), and how many do other loaders?

    python -m benchmarks.loader [--pairs 5] [--seconds 1] [--processor 0]

Text: the shared reviews and addresses as sentence pairs of up to 128 and 512 tokens.  Each side masks 15 %, 80/10/10,
without workers and with one thread, in turn within each round:

- ours: updates of 4,096 sequences in micro-batches of 256 from the whole set in random order, packed, masked anew;
  on our own uncompressed shards, and on gzip shards of the same rows in the native layout, as the fork writes them;
  those are decompressed once into the cache, which is told apart and in the rate of the first epoch (a round is one
  epoch, with an empty cache); the same of NVIDIA's layout (`static`): masked when written, chunks as h5py chooses them;
- row_reader, static_row_reader: rows of the same gzip shards in file order, one by one in Python
  (`loader_peers.RowReader`, `StaticRowReader`);
- datasets: the same rows shuffled in `datasets`, `DataCollatorForLanguageModeling` of transformers.

Rates are millions of tokens that are no padding a second of processor time (user and system), medians of the rounds;
ratios are of one round.  Making micro-batches into tensors costs ours nothing; the peers' batches are tensors already.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch

from benchmarks.loader_peers import DATASETS_VERSION, StaticRowReader, batches_of, datasets_batches, row_reader_batches
from bert_pytorch.corpus.__main__ import main as corpus
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards import gzip_chunks
from bert_pytorch.shards.cache import FOLDER_VARIABLE
from bert_pytorch.shards.shard_set import ShardSet
from tests.support.data import data_folder

LENGTHS = (128, 512)
UPDATE, MICRO_BATCH = 4096, 256
SHARD_ROWS = 4096


class Sides(NamedTuple):
    """What is compared at one length: each yields the real tokens of batch after batch."""

    plain: TrainingLoader
    gzip_folder: Path
    static_folder: Path
    datasets: Callable[[int, int], Iterator[int]]
    vocabulary: Vocabulary


def build_sets(folder: Path) -> dict[tuple[int, str], Path]:
    """Encode the shared text at each length: uncompressed, with gzip, and masked as NVIDIA's script writes it."""
    data = data_folder()
    if data is None:
        raise SystemExit("error: the real data is absent; set BERT_PYTORCH_DATA.")
    formatted = folder / "formatted"
    _corpus("format", "--input", data / "text", "--output", formatted)
    sets = {}
    kinds = {
        "none": ("--compression", "none"),
        "gzip": ("--compression", "gzip"),
        "static": ("--compression", "none", "--masking", "static", "--masked_token_fraction", 0.15),
    }
    for kind, words in kinds.items():
        output = folder / kind
        _corpus(
            *("encode", "--input", formatted, "--output", output, *words),
            *("--vocab_file", data / "vocab" / "bert-base-uncased-vocab.txt", "--shard_sequences", SHARD_ROWS),
            *("--max_seq_len", *LENGTHS, "--short_seq_prob", 0.1, 0),
        )
        for length in LENGTHS:
            (sets[length, kind],) = output.glob(f"*_max_seq_len_{length}_*")
    for length in LENGTHS:
        sets[length, "static"] = stored_as_nvidia(sets[length, "static"], folder / f"nvidia_{length}")
    return sets


def stored_as_nvidia(encoded: Path, folder: Path) -> Path:
    """Copy static shards with gzip, chunks of h5py's choice, without our attributes and manifest."""
    folder.mkdir()
    for path in encoded.glob("train_*.hdf5"):
        with h5py.File(path) as ours, h5py.File(folder / path.name, "w") as file:
            for name, data in ours.items():
                file.create_dataset(name, data=data[:], compression="gzip")
    shutil.copy(encoded / "vocab.txt", folder)
    return folder


def _corpus(*words: object) -> None:
    with contextlib.redirect_stdout(None):
        if corpus([str(word) for word in words]):
            raise SystemExit("error: the corpus could not be built.")


def open_loader(folder: Path) -> TrainingLoader:
    """Open a set as a training run does."""
    config = DataConfig(
        input_dir=(str(folder),), global_batch_size=UPDATE, local_batch_size=MICRO_BATCH, num_workers=0, seed=1
    )
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    vocabulary = corpora.sources[0].vocabulary
    assert vocabulary is not None
    batches = BatchMaker(corpora, vocabulary, policy_for(config, vocabulary), next_sentence=True)
    return TrainingLoader(batches, config)


def updates(loader: TrainingLoader, number: int = 0) -> Iterator[int]:
    """Yield the tokens of update after update, from number `number` on."""
    while True:
        yield loader.update_at(number * UPDATE, number).num_tokens
        number += 1


def rate(tokens: Iterable[int], seconds: float) -> float:
    """Return millions of tokens a second of processor time, drawing for about that long or to the end."""
    started, total, used = time.process_time(), 0, 0.0
    for count in tokens:
        total += count
        used = time.process_time() - started
        if used > seconds:
            break
    return total / used / 1e6


def first_epoch(folder: Path) -> tuple[float, float, float]:
    """Read gzip shards with an empty cache: rate of the first epoch, decompression's seconds, rate without it."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ[FOLDER_VARIABLE] = cache
        loader = open_loader(folder)
        source = loader.corpora.sources[0]
        firsts = np.cumsum(source.shard_sizes) - source.shard_sizes
        started = time.process_time()
        source.rows(firsts)  # one row of each shard brings it into the cache
        decompression = time.process_time() - started
        epoch = -(-loader.corpora.num_sequences // UPDATE)
        started, total = time.process_time(), 0
        for _, count in zip(range(epoch), updates(loader), strict=False):
            total += count
        reading = time.process_time() - started
        loader.corpora.close()
    return total / (decompression + reading) / 1e6, decompression, total / reading / 1e6


def compare(sides: Sides, pairs: int, seconds: float) -> dict[str, object]:
    """Measure all sides in turn, round by round."""
    rates: dict[str, list[float]] = {}

    def note(names: Iterable[str], values: Iterable[float]) -> None:
        for name, value in zip(names, values, strict=True):
            rates.setdefault(name, []).append(value)

    def row_reader() -> Iterator[int]:
        return row_reader_batches(shards_of(sides.gzip_folder), sides.vocabulary, MICRO_BATCH)

    def static_row_reader() -> Iterator[int]:
        return batches_of(StaticRowReader(shards_of(sides.static_folder)), MICRO_BATCH)

    for warm_up in (updates(sides.plain), row_reader(), static_row_reader(), sides.datasets(0, MICRO_BATCH)):
        rate(warm_up, seconds / 4)  # peers too: they import on first use
    for turn in range(pairs):
        note(["ours"], [rate(updates(sides.plain, 100 * turn), seconds)])
        for kind, folder in (("gzip", sides.gzip_folder), ("static_gzip", sides.static_folder)):
            names = (f"ours_{kind}_first_epoch", f"{kind}_decompression_seconds", f"ours_{kind}_cached")
            note(names, first_epoch(folder))
        note(["row_reader"], [rate(row_reader(), seconds)])
        note(["static_row_reader"], [rate(static_row_reader(), seconds)])
        note(["datasets"], [rate(sides.datasets(turn, MICRO_BATCH), seconds)])
    result: dict[str, object] = {name: round(statistics.median(values), 3) for name, values in rates.items()}
    for mine, peer in (
        *itertools.product(("ours", "ours_gzip_first_epoch"), ("row_reader", "datasets")),
        ("ours_static_gzip_first_epoch", "static_row_reader"),
    ):
        ratios = [one / other for one, other in zip(rates[mine], rates[peer], strict=True)]
        result[f"{mine}/{peer}"] = round(statistics.median(ratios), 1)
    return result


def shards_of(folder: Path) -> list[Path]:
    """List the files of a set in order of name."""
    return sorted(folder.glob("train_*.hdf5"))


def all_rows(loader: TrainingLoader) -> SequenceRows:
    """Read the whole set."""
    return loader.corpora.sources[0].rows(np.arange(loader.corpora.num_sequences))


def measure(pairs: int, seconds: float, processor: int) -> dict[str, object]:
    """Print a row for each length and return all; this process runs on one processor meanwhile."""
    torch.set_num_threads(1)
    result: dict[str, object] = {"id": "D4", "unit": "M real tokens/s/core", "pairs": pairs}
    result |= {
        "inflating": gzip_chunks.inflating.__name__,
        "update": UPDATE,
        "micro_batch": MICRO_BATCH,
        "datasets_version": DATASETS_VERSION,
    }
    processors = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        sets = build_sets(Path(name))
        os.sched_setaffinity(0, {processor})
        try:
            for length in LENGTHS:
                plain, gzip = open_loader(sets[length, "none"]), sets[length, "gzip"]
                source = plain.corpora.sources[0]
                assert isinstance(source, ShardSet)
                assert source.vocabulary is not None
                folder = Path(name) / f"datasets_{length}"
                folder.mkdir()
                peer = datasets_batches(all_rows(plain), source.vocabulary, folder)
                row = compare(Sides(plain, gzip, sets[length, "static"], peer, source.vocabulary), pairs, seconds)
                row["sequences"], row["shards"] = source.num_sequences, len(shards_of(gzip))
                print(f"L={length}: {row}", flush=True)
                result[str(length)] = row
        finally:
            os.sched_setaffinity(0, processors)
    return result


def main() -> None:
    """Print a row for each length, then all as one JSON line."""
    parser = argparse.ArgumentParser(description="The loader and others compared.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of processor time for each side and round")
    parser.add_argument("--processor", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(measure(options.pairs, options.seconds, options.processor)))


if __name__ == "__main__":
    main()
