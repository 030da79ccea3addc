"""`inspect batch`: the exact samples and masks of any update of a run, rebuilt from what its sessions recorded."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from pydantic import Field, ValidationError

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import BatchMaker, TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.errors import InputError
from bert_pytorch.inspect.samples import Sample, Words, legend, sample_lines
from bert_pytorch.inspect.terminal import Color, paint, printable, wants_color
from bert_pytorch.records import IGNORED_LABEL, MicroBatch, Vocabulary
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary
from bert_pytorch.vocabulary import read_vocabulary

METRICS = "metrics.jsonl"


class BatchConfig(Settings):
    """Show an update of a run: its samples decoded, with the masks that training drew."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The run's --output_dir."""
    step: int = Field(1, ge=1)
    """Number of the update, phases added up."""
    rank: int = Field(0, ge=0)
    """Rank whose samples are decoded."""
    world_size: int | None = Field(None, ge=1)
    """Ranks that share the update; by default as many as the run had."""
    num_samples: int = Field(3, ge=0)
    """Sequences decoded, from the first on; 0 shows counts and the digest alone."""
    input_dir: tuple[str, ...] = ()
    """Where the data lie now, if they were moved."""
    color: Color = "auto"
    """auto: on a terminal, unless $NO_COLOR is set."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if len(self.runs) != 1:
            yield f"found {len(self.runs)} runs, wanted one: type its --output_dir."

    @property
    def run(self) -> Path:
        """The one run."""
        return self.runs[0]


class Recorded(NamedTuple):
    """What a run says about an update."""

    start: dict[str, Any]
    """Its session's `start` row."""
    position: int
    """Samples of the phase consumed before some update at or before it."""
    step: int
    """Updates done there, phases added up."""


def describe_batch(config: BatchConfig) -> Iterator[str]:
    """Yield the lines that show an update.

    Raises:
        InputError: if the run did not reach it, or its data are not there.
    """
    color = wants_color(config.color)
    recorded = find_update(config.run, config.step)
    loader, words = open_run_data(recorded, config)
    world_size = config.world_size or recorded.start["world_size"]
    if config.rank >= world_size:
        raise InputError(f"--rank: found {config.rank}, wanted 0 to {world_size - 1}, as there are {world_size} ranks.")
    update = update_of(loader, recorded, config.step)
    yield paint(f"update {config.step} of {printable(str(config.run))}", "heading", color)
    first, last = update.start_position, update.end_position - 1
    yield f"  samples        {first:,} to {last:,} of the phase, epoch {update.epoch}"
    yield f"  ranks          {world_size}"
    yield f"  digest         {digest(update)} (of all ranks' samples and masks, however they are shared)"
    mine = TrainingLoader(loader.batches, loader.config, rank=config.rank, world_size=world_size)
    mine_update = mine.update_at(update.start_position, config.step - 1 - recorded.start["phase_start"])
    for number, batch in enumerate(mine_update.micro_batches):
        yield (
            f"  micro-batch {number} of rank {config.rank}: {batch.num_sequences} sequences, "
            f"{batch.num_tokens} tokens, {batch.num_masked} masked, {batch.num_pairs} pairs"
        )
    if config.num_samples:
        yield f"  {legend(words, True, color)}"
    samples = [(number, sample) for number, batch in enumerate(mine_update.micro_batches) for sample in split(batch)]
    for index, (number, sample) in enumerate(samples[: config.num_samples]):
        label = sample.next_sentence_label
        task = "" if label is None else f", label {label} ({'a random text' if label else 'the true next'})"
        yield ""
        yield f"sequence {index}, micro-batch {number}: {len(sample.input_ids)} tokens{task}"
        yield from sample_lines(sample, words, color)


def find_update(run: Path, step: int) -> Recorded:
    """Find where an update's samples begin, or those of an update before it.

    Raises:
        InputError: if the run has no such update or no record of its data.
    """
    path = run / METRICS
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: not there. Name the --output_dir of a run.") from None
    rows = [row for row in map(_row, lines) if row is not None]
    last = max((row["step"] for row in rows if row["event"] in ("train", "end")), default=0)
    if step > last:
        raise InputError(f"{run}: update {step} was not reached, its last one is {last}. Give a --step up to that.")
    found: Recorded | None = None
    for row in rows:
        if row["event"] == "start" and row["step"] < step:
            found = Recorded(row, int(row["samples"]), row["step"])
        elif row["event"] == "train" and found is not None and "samples" in row:
            if row["step"] == step:
                return Recorded(found.start, int(row["samples"]) - int(row["sequences"]), step - 1)
            if row["step"] < step:
                found = Recorded(found.start, int(row["samples"]), row["step"])
    if found is None:
        raise InputError(f"{path}: it does not say what data update {step} was made of (a run of an older version).")
    return found


def open_run_data(recorded: Recorded, config: BatchConfig) -> tuple[TrainingLoader, Words]:
    """Open the data of a run as its session did; returns the loader of a single rank, and what shows tokens."""
    try:
        known = {name: value for name, value in recorded.start["data"].items() if name in DataConfig.model_fields}
        settings = DataConfig.model_validate({**known, "num_workers": 0})
    except (KeyError, AttributeError, ValidationError) as error:
        raise InputError(f"{config.run}: its {METRICS} is damaged: the `start` row has no data ({error}).") from None
    if config.input_dir:
        settings = settings.model_copy(update={"input_dir": config.input_dir})
    given: Vocabulary | None = None if settings.vocab_file is None else read_vocabulary(settings.vocab_file)
    corpora = open_corpora(settings.input_dir, "train", settings, given, lowercase=True)
    corpora.exclude(recorded.start.get("excluded_shards", ()))
    vocabulary = given or corpora.vocabulary
    if vocabulary is None:
        raise InputError(f"{' '.join(settings.input_dir)}: no vocabulary beside the shards. Put vocab.txt there.")
    batches = BatchMaker(
        corpora, vocabulary, policy_for(settings, vocabulary), next_sentence=recorded.start["next_sentence"]
    )
    return TrainingLoader(batches, settings), Words(tokenizer_from_vocabulary(vocabulary))


def update_of(loader: TrainingLoader, recorded: Recorded, step: int) -> Update:
    """Rebuild an update, walking on from the recorded one by plans alone."""
    position, phase_start = recorded.position, recorded.start["phase_start"]
    for number in range(recorded.step - phase_start, step - 1 - phase_start):
        position = loader.plan(position, number).end
    return loader.update_at(position, step - 1 - phase_start)


def digest(update: Update) -> str:
    """Hash the sequences of an update with their masks, whatever their order: equal for equal samples."""
    each = [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(part, np.int64).tobytes() for part in (s.input_ids, s.originals, s.masked))
        ).hexdigest()
        for batch in update.micro_batches
        for s in split(batch)
    ]
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()


def split(batch: MicroBatch) -> Iterator[Sample]:
    """Yield the sequences of a micro-batch."""
    originals = batch.input_ids.copy()
    originals[batch.masked_positions] = batch.labels
    masked = np.zeros(len(originals), bool)
    masked[batch.masked_positions] = True
    for number, (start, stop) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        label = None if batch.next_sentence_labels is None else int(batch.next_sentence_labels[number])
        yield Sample(
            input_ids=batch.input_ids[start:stop],
            originals=originals[start:stop],
            masked=masked[start:stop],
            segment_b_start=int(np.count_nonzero(batch.token_type_ids[start:stop] == 0)),
            next_sentence_label=None if label == IGNORED_LABEL else label,
            padding=0,
        )


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("event"), str):
        return row
    return None
