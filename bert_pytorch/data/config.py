"""What decides which samples, masks and micro-batches an update has: nothing else of a run's configuration does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.dealing import parse_sizes
from bert_pytorch.data.masking import EvaluationMaskingConfig, MaskingConfig
from bert_pytorch.data.texts.config import TextConfig

MEASURE = "measure"
"""--local_batch_sizes that are found out at the start."""


class LoaderConfig(Settings):
    """How batches are made ready; no value changes what is in them."""

    num_workers: int = Field(2, ge=0)
    """Threads that make the next updates ready while the model computes; 0 makes each when it is needed."""
    remote_prefetch: int = Field(4, ge=0)
    """Threads that fetch shards of an s3:// set ahead."""


class BatchConfig(Settings):
    """How many sequences an update has and how they are shared among ranks and micro-batches."""

    global_batch_size: int = Field(65536, ge=1)
    """Sequences per update over all ranks, met exactly (BERT-large phase 1: 65,536; You et al. 2020)."""
    global_batch_tokens: int | None = Field(None, ge=1)
    """Instead of --global_batch_size, where given: tokens per update over all ranks at most; an update takes as many
    whole sequences as fit."""
    local_batch_size: int = Field(8, ge=1)
    """Most sequences of one micro-batch on one rank: as many as the memory holds.  With --packing rows: rows of every
    micro-batch, each of several sequences."""
    local_batch_sizes: str | None = None
    """Instead of --local_batch_size, where ranks differ: the size of each, in the order of ranks: 16,16,8, or 16x8,8x4
    for 8 ranks of 16 and 4 of 8; one of size 0 only takes part.  measure: the fastest rank has --local_batch_size, the
    others fewer by the speed that is measured at the start.  With --max_tokens: the proportions of their budgets.  An
    update's sequences are the same whatever the sizes."""
    max_tokens: int | None = Field(None, ge=1)
    """Instead of --local_batch_size, where given: most tokens of one micro-batch on one rank; ranks and micro-batches
    then get about equally many, also in evaluation.  With --packing rows: as many rows as have room in it."""
    packing: Literal["auto", "tokens", "rows"] = "auto"
    """How sequences lie in a micro-batch: end to end without any padding (tokens), or in rows of the corpus's sequence
    length, so that all shapes are fixed (rows): for devices that compile each shape anew, and CUDA graphs.  auto: rows
    on Gaudi, else tokens."""
    max_sequences_per_row: int = Field(8, ge=1)
    """Most sequences of a row with --packing rows."""
    batch_ramp_updates: int = Field(0, ge=0)
    """Updates over which the batch grows linearly from --batch_ramp_start to its full size."""
    batch_ramp_start: int = Field(256, ge=1)
    """Size of the first update of the ramp, in what the full size is given in: sequences or tokens."""
    length_group_updates: int = Field(0, ge=0)
    """Sort the samples of this many updates by length, so that micro-batches hold sequences of similar lengths.  1
    leaves every update its samples; with more, whole updates are of similar lengths and come in random order; 0
    sorts nothing."""
    length_curriculum_updates: int = Field(0, ge=0)
    """Updates over which the longest sequence grows linearly from --length_curriculum_start to full length; longer
    ones are cut to it (Li et al. 2022, arXiv 2108.06084, sequence length warmup)."""
    length_curriculum_start: int = Field(64, ge=8)
    """Tokens of a sequence at most in the first update of the curriculum."""

    def with_packing(self, *, fixed_shapes: bool) -> Self:
        """Return the configuration with `--packing auto` settled: rows where a device wants fixed shapes.

        Raises:
            ConfigError: if other options do not go together with rows.
        """
        if self.packing != "auto":
            return self
        chosen = self.model_copy(update={"packing": "rows" if fixed_shapes else "tokens"})
        return chosen.checked("--packing rows, which --device hpu takes") if fixed_shapes else chosen

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        budget = self.global_batch_tokens
        full, unit = (self.global_batch_size, "size") if budget is None else (budget, "tokens")
        if self.batch_ramp_updates and self.batch_ramp_start > full:
            yield (
                f"--batch_ramp_start {self.batch_ramp_start} is more than --global_batch_{unit} {full}, where the ramp "
                "ends; give a smaller start."
            )
        if self.local_batch_sizes not in (None, MEASURE):
            try:
                parse_sizes(str(self.local_batch_sizes))
            except ValueError as error:
                yield (
                    f"--local_batch_sizes: found {self.local_batch_sizes!r} ({error}), wanted the size of each rank: "
                    "16,16,8, or 16x2,8 for the same, or measure."
                )
        if self.packing == "rows" and self.length_group_updates:
            yield (
                f"--packing rows fills rows with sequences of all lengths; with --length_group_updates "
                f"{self.length_group_updates} an update has similar ones, which leave gaps. Keep one of them."
            )


class DataConfig(LoaderConfig, BatchConfig, MaskingConfig, EvaluationMaskingConfig, TextConfig):
    """The data of a run and the order in which it is read."""

    input_dir: tuple[str, ...] = ()
    """Shards to train on: a file, a folder (searched recursively for *.hdf5) or s3://bucket/prefix; or text, tokenized
    at the first start (--max_seq_len): *.parquet or a dataset saved by Hugging Face's datasets.  Several are read as
    one corpus, or mixed by --mixture_weights.  Required."""
    mixture_weights: tuple[float, ...] = ()
    """Share of samples drawn from each --input_dir, in any unit; every corpus then has epochs of its own.  Without
    them each sequence is read once an epoch."""
    vocab_file: Path | None = None
    """Vocabulary; needed only for text, and for shards of other tools that come without one."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Seed of initialisation, sample order, masks and dropout."""
    shuffle_window: int = Field(0, ge=0)
    """Shards that samples are drawn from at a time, in random order of the shards; 0 draws from all at once.  For sets
    in s3:// that are larger than the local cache."""
    on_bad_shard: Literal["stop", "skip"] = "stop"
    """What a damaged shard does: stop names it, skip leaves it out, on every rank from the same update on."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "data_dir": "--input_dir",
        "train_batch_size": "--global_batch_size (sequences per update over all ranks) and --local_batch_size",
        "max_sentences": "--local_batch_size (and --global_batch_size for a whole update)",
        "gradient_accumulation_steps": "--global_batch_size: micro-batches follow from it and --local_batch_size",
        "update_freq": "--global_batch_size: micro-batches follow from it and --local_batch_size",
        "group_by_length": "--length_group_updates (1 sorts within an update)",
        "max_tokens_per_batch": "--max_tokens",
        "enable_packed_data_mode": "--packing rows (fixed shapes); without it sequences are packed without any padding",
        "max_sequences_per_pack": "--max_sequences_per_row",
    }

    @field_validator("input_dir", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (str(value),) if isinstance(value, str | Path) else value

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        weights = self.mixture_weights
        if weights and len(weights) != len(self.input_dir):
            yield f"--mixture_weights: found {len(weights)} for {len(self.input_dir)} --input_dir, wanted one for each."
        if any(weight <= 0 for weight in weights):
            yield f"--mixture_weights: found {min(weights)}, wanted numbers above 0; leave a corpus of weight 0 out."
        doubled = sorted({path for path in self.input_dir if self.input_dir.count(path) > 1})
        if doubled:
            yield f"--input_dir: {doubled[0]} stands twice; name it once, with a larger one of --mixture_weights."
