"""Sets of real text with the lengths that training is measured at, encoded once by the shipped corpus commands."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from bert_pytorch.corpus.__main__ import main as corpus
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import BatchMaker, TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.files import exclusive_lock
from tests.support.data import data_folder
from tests.support.lengths import wikipedia_histogram

FILL_128 = 0.72
"""Mean length over 128, as BERT's first phase has it on short documents."""
_SHORT_SEQ_PROB = {128: 0.73, 512: 0.94}
"""A short target is uniform up to the length: 1 - p / 2 of the cells are filled, less what documents leave at their
ends."""
_WIKIPEDIA_SEQUENCES = 3000
_FULL_SEQUENCES = 8192
_SEED = 1


class TrainingSet(NamedTuple):
    """One encoded set."""

    folder: Path
    """What `--input_dir` takes."""
    sequences: int
    mean_length: float
    attended_length: float
    """E[n²] / E[n]: the length that a token sees on average."""


def prepare(work: Path) -> dict[int, TrainingSet]:
    """Return the sets by length, built at the first call.

    128: documents cut so that 72 % of the cells are filled.  512: as the shapes of all of Wikipedia's sequences are
    (`wikipedia_histogram`: a quarter full, the commonest other length 50), chosen by length from encoded text.
    """
    work.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(work, "benchmarks"):
        if not (work / "complete").exists():
            _build(work)
            (work / "complete").touch()
    return {length: _described(work / f"set_{length}") for length in (128, 512)}


def prepare_slice(work: Path, target: Path) -> None:
    """Write what travels to a machine without the data: full sequences of 128 and Wikipedia's lengths at 512."""
    sets = prepare(work)
    full = np.flatnonzero(_lengths(sets[128].folder) == 128)
    target.mkdir(parents=True, exist_ok=True)
    _write_rows(sets[128].folder, target / "set_128", full[:_FULL_SEQUENCES])
    _write_rows(sets[512].folder, target / "set_512", np.arange(sets[512].sequences))


def updates(folder: Path, batch_size: int, *, seed: int) -> Iterator[Update]:
    """Yield the updates that a training run of this seed and batch size draws, the first one first."""
    loader = _loader(folder, batch_size, seed)
    yield from loader.stream(0)


def order_of_samples(folder: Path, batch_size: int, *, seed: int) -> np.ndarray:
    """Return the order in which such a run reads the rows of its first epoch, int64 (n,)."""
    loader = _loader(folder, batch_size, seed)
    count = loader.corpora.num_sequences // batch_size
    plans = (loader.plan(number * batch_size, number) for number in range(count))
    return np.concatenate([samples.indices for plan in plans for samples in plan.micro_batches])


def _loader(folder: Path, batch_size: int, seed: int) -> TrainingLoader:
    config = DataConfig(
        input_dir=(str(folder),), global_batch_size=batch_size, local_batch_size=batch_size, seed=seed, num_workers=0
    )
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    vocabulary = corpora.vocabulary
    assert vocabulary is not None
    return TrainingLoader(BatchMaker(corpora, vocabulary, policy_for(config, vocabulary), next_sentence=True), config)


def _build(work: Path) -> None:
    data = data_folder()
    if data is None:
        raise SystemExit("error: the real data is absent; set BERT_PYTORCH_DATA.")
    _corpus("format", "--input", data / "text", "--output", work / "formatted")
    for length, short in _SHORT_SEQ_PROB.items():
        _corpus(
            *("encode", "--input", work / "formatted", "--output", work / "encoded", "--max_seq_len", length),
            *("--vocab_file", data / "vocab" / "bert-base-uncased-vocab.txt", "--short_seq_prob", short),
            *("--eval_fraction", 0, "--seed", _SEED),
        )
    encoded = {length: next((work / "encoded").glob(f"*_max_seq_len_{length}_*")) for length in _SHORT_SEQ_PROB}
    for length, folder in encoded.items():
        lengths = _lengths(folder)
        histogram = wikipedia_histogram(_WIKIPEDIA_SEQUENCES) if length == 512 else None
        chosen = np.arange(len(lengths)) if histogram is None else rows_of_shape(lengths, histogram)
        _write_rows(folder, work / f"set_{length}", chosen)


def rows_of_shape(lengths: np.ndarray, histogram: np.ndarray) -> np.ndarray:
    """Choose rows, none twice, whose lengths follow a histogram: wanted and had are paired by rank of length.

    Args:
        lengths: int (n,), of the rows there are.
        histogram: int (L + 1,), how many of each length are wanted; n at most.

    Returns:
        int64, indices of rows in rising order.
    """
    free: dict[int, list[int]] = {}
    for row, length in enumerate(lengths.tolist()):
        free.setdefault(length, []).append(row)
    chosen = []
    for wanted in np.flatnonzero(histogram)[::-1].tolist():
        for _ in range(histogram[wanted]):
            nearest = min(free, key=lambda length: abs(length - wanted))
            chosen.append(free[nearest].pop())
            if not free[nearest]:
                del free[nearest]
    return np.sort(np.asarray(chosen, np.int64))


def _write_rows(source: Path, target: Path, rows: np.ndarray) -> None:
    """Write a shard of some rows of a set, in a folder with the same vocabulary."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target)
    parts = [_columns(path) for path in _shards(source)]
    with h5py.File(target / "train_0.hdf5", "w") as file:
        for name in parts[0]:
            file[name] = np.concatenate([part[name] for part in parts])[rows]


def _described(folder: Path) -> TrainingSet:
    lengths = _lengths(folder)
    return TrainingSet(
        folder, len(lengths), float(lengths.mean()), float(np.square(lengths, dtype=np.float64).mean() / lengths.mean())
    )


def _lengths(folder: Path) -> np.ndarray:
    return np.concatenate([_columns(path)["special_token_positions"][:, -1] + 1 for path in _shards(folder)])


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("train_*.hdf5"))


def _columns(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {name: file[name][:] for name in file}


def _corpus(*words: object) -> None:
    with contextlib.redirect_stdout(None):
        if corpus([str(word) for word in words]):
            raise SystemExit("error: the corpus could not be built.")


def main() -> None:
    """Build the sets in runs/benchmarks/training_step and say what they are."""
    for length, described in prepare(Path("runs/benchmarks/training_step")).items():
        print(json.dumps({"length": length, **described._asdict()}, default=str))


if __name__ == "__main__":
    main()
