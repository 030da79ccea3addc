"""`inspect batch`: the exact samples and masks of any update of a run, rebuilt from what its sessions recorded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.inspect.run_records import RecordedUpdate, find_update
from bert_pytorch.inspect.samples import Sample, Words, legend, sample_lines
from bert_pytorch.inspect.terminal import Color, paint, printable, wants_color
from bert_pytorch.records import IGNORED_LABEL, MicroBatch
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary
from bert_pytorch.vocabulary import read_vocabulary


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
    """Where the data lie now, if they were moved; as many as the run had."""
    vocab_file: Path | None = None
    """Where the run's --vocab_file lies now, if it was moved."""
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


def describe_batch(config: BatchConfig) -> Iterator[str]:
    """Yield the lines that show an update.

    Raises:
        InputError: if the run did not reach it, or its data are not there.
    """
    color = wants_color(config.color)
    recorded = find_update(config.run, config.step)
    world_size = config.world_size or recorded.world_size
    if config.rank >= world_size:
        problem = f"found {config.rank}, wanted 0 to {world_size - 1}, as there are {world_size} ranks."
        raise ConfigError("--rank", [problem])
    batches, words = open_run_data(recorded, config)
    try:
        whole = rebuilt(batches, recorded)
        data = recorded.data if world_size == recorded.world_size else _of_equal_ranks(recorded.data)
        loader = TrainingLoader(batches, data, rank=config.rank, world_size=world_size)
        mine = loader.update_at(whole.start_position, config.step - 1 - recorded.phase_start)
    finally:
        batches.corpora.close()
    yield paint(f"update {config.step} of {printable(str(config.run))}", "heading", color)
    first, last = whole.start_position, whole.end_position - 1
    yield f"  samples        {first:,} to {last:,} of the phase, epoch {whole.epoch}"
    yield f"  ranks          {world_size}"
    yield f"  digest         {digest(whole)} (SHA-256 of all ranks' samples and masks, however they are shared)"
    for number, batch in enumerate(mine.micro_batches):
        yield (
            f"  micro-batch {number} of rank {config.rank}: {batch.num_sequences} sequences, "
            f"{batch.num_tokens} tokens, {batch.num_masked} masked, {batch.num_pairs} pairs"
        )
    if config.num_samples:
        yield f"  {legend(words, True, color)}"
    samples = [(number, sample) for number, batch in enumerate(mine.micro_batches) for sample in split(batch)]
    for index, (number, sample) in enumerate(samples[: config.num_samples]):
        label = sample.next_sentence_label
        task = "" if label is None else f", label {label} ({'a random text' if label else 'the true next'})"
        yield ""
        yield f"sequence {index}, micro-batch {number}: {len(sample.input_ids)} tokens{task}"
        yield from sample_lines(sample, words, color)


def open_run_data(recorded: RecordedUpdate, config: BatchConfig) -> tuple[BatchMaker, Words]:
    """Open the data of a run as its session did; returns what makes its micro-batches, and what shows tokens.

    Raises:
        InputError: if the data are not there, or are others.
        ConfigError: if `--input_dir` names another number of them.
    """
    data = recorded.data
    if config.input_dir:
        if len(config.input_dir) != len(data.input_dir):
            found, wanted = len(config.input_dir), len(data.input_dir)
            raise ConfigError(
                "--input_dir", [f"found {found}, wanted {wanted}: {', '.join(data.input_dir)}, as moved."]
            )
        data = data.model_copy(update={"input_dir": config.input_dir})
    if config.vocab_file is not None:
        data = data.model_copy(update={"vocab_file": config.vocab_file})
    lowercase = recorded.lowercase
    try:
        given = None if data.vocab_file is None else read_vocabulary(data.vocab_file, otherwise=lowercase)
        corpora = open_corpora(data.input_dir, "train", data, given, lowercase=lowercase)
    except InputError as error:
        raise InputError(f"{error} If the run's data were moved, name their place: --input_dir, --vocab_file") from None
    vocabulary = given or corpora.vocabulary
    if vocabulary is None:
        raise InputError(
            f"{' '.join(data.input_dir)}: no vocabulary beside the shards. Name it: --vocab_file vocab.txt"
        )
    _refuse_other_data(corpora, recorded)
    batches = BatchMaker(corpora, vocabulary, policy_for(data, vocabulary), next_sentence=recorded.next_sentence)
    return batches, Words(tokenizer_from_vocabulary(vocabulary))


def rebuilt(batches: BatchMaker, recorded: RecordedUpdate) -> Update:
    """Rebuild an update for a single rank, walking on from where the position is known by plans alone."""
    loader = TrainingLoader(batches, _of_equal_ranks(recorded.data))
    position = recorded.known_position
    for step in range(recorded.known_step + 1, recorded.step + 1):
        left_out = [each.shard for each in recorded.excluded if each.step <= step]
        if set(left_out) - set(loader.corpora.excluded()):
            loader.exclude(left_out)
        if step < recorded.step:
            position = loader.plan(position, step - 1 - recorded.phase_start).end
    return loader.update_at(position, recorded.step - 1 - recorded.phase_start)


def _of_equal_ranks(data: DataConfig) -> DataConfig:
    """Return the configuration for any number of ranks: which samples an update has does not depend on their sizes."""
    return data.model_copy(update={"local_batch_sizes": None})


def digest(update: Update) -> str:
    """Hash the sequences of an update with masks and labels, whatever their order: equal for equal samples."""
    each = [
        hashlib.sha256(
            b"".join(
                np.ascontiguousarray(part, np.int64).tobytes()
                for part in (sample.input_ids, sample.originals, sample.masked, _ends(sample))
            )
        ).hexdigest()
        for batch in update.micro_batches
        if batch.num_masked or batch.num_pairs  # else it stands in where a rank has no sample
        for sample in split(batch)
    ]
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()


def split(batch: MicroBatch) -> Iterator[Sample]:
    """Yield the sequences of a micro-batch."""
    originals = batch.input_ids.copy()
    used = batch.labels != IGNORED_LABEL
    originals[batch.masked_positions[used]] = batch.labels[used]
    masked = np.zeros(len(originals), bool)
    masked[batch.masked_positions[used]] = True
    for number, (start, stop) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        if batch.is_sequence is not None and not batch.is_sequence[number]:
            continue
        label = None if batch.next_sentence_labels is None else int(batch.next_sentence_labels[number])
        yield Sample(
            input_ids=batch.input_ids[start:stop],
            originals=originals[start:stop],
            masked=masked[start:stop],
            segment_b_start=int(np.count_nonzero(batch.token_type_ids[start:stop] == 0)),
            next_sentence_label=None if label == IGNORED_LABEL else label,
            padding=0,
        )


def _ends(sample: Sample) -> np.ndarray:
    label = IGNORED_LABEL if sample.next_sentence_label is None else sample.next_sentence_label
    return np.asarray([len(sample.input_ids), sample.segment_b_start, label])


def _refuse_other_data(corpora: Corpora, recorded: RecordedUpdate) -> None:
    if corpora.num_sequences != recorded.sequences:
        raise InputError(
            f"{' '.join(corpora.names)}: found {corpora.num_sequences:,} sequences, the run had "
            f"{recorded.sequences:,}: these are other data. Name those of the run: --input_dir"
        )
