"""One set of shards, a folder for one sequence length: what decides its bytes, its shards, and its manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.sequences import Frame
from bert_pytorch.corpus.shard_rows import ShardTask, deal_rows, finished_shard, make_shard
from bert_pytorch.corpus.token_blocks import SequenceSettings, TokenBlock
from bert_pytorch.data.masking import MaskingPolicy
from bert_pytorch.progress import Progress
from bert_pytorch.shards.layouts import EVAL_PREFIX, MANIFEST, SCHEMA_VERSION, TRAIN_PREFIX, Layout
from bert_pytorch.shards.manifest import Manifest, ShardRecord, SplitCounts, read_manifest
from bert_pytorch.shards.writing import Compression, row_bytes
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_TEXT

_VERSION = 3
"""Raised when the same settings and text become other rows, so that no build goes on with another version's files."""
Splits = dict[str, list[TokenBlock]]
"""Token files of the training part and of the held-out one, by `TRAIN_PREFIX` and `EVAL_PREFIX`."""


class StoredRows(NamedTuple):
    """How the rows of a set are written."""

    policy: MaskingPolicy | None
    """How they are masked for good; None where masking is dynamic."""
    compression: Compression
    shard_bytes: int
    """Most bytes of a shard before compression."""
    shard_sequences: int
    """Most rows of a shard; 0 lets `shard_bytes` decide."""

    def rows_a_shard(self, sequence_length: int) -> int:
        """Return the most rows that a shard may have."""
        slots = 0 if self.policy is None else self.policy.max_predictions
        return self.shard_sequences or max(1, self.shard_bytes // row_bytes(self.layout, sequence_length, slots))

    @property
    def layout(self) -> Layout:
        """Native for dynamic masking, NVIDIA's for static masking."""
        return "native" if self.policy is None else "nvidia"


class SetPlan(NamedTuple):
    """One set to build and everything that decides its bytes."""

    build: Build
    sequences: SequenceSettings
    stored: StoredRows
    tokenizer: Tokenizer
    input_sha256: str

    @property
    def pairs(self) -> bool:
        """Whether rows are pairs with a next-sentence label."""
        return self.sequences.kind == "pairs"

    def needs_work(self) -> bool:
        """Tell whether the set is not finished, or has lost shards.

        Raises:
            InputError: if the folder holds another build.
        """
        return self.build.needs_work() or _lacks_shards(self.build.folder)


def plan_set(
    output: Path,
    sequences: SequenceSettings,
    stored: StoredRows,
    settings: dict[str, Any],
    tokenizer: Tokenizer,
    input_sha256: str,
) -> SetPlan:
    """Name a set's folder and fingerprint.

    Args:
        output: folder above the set's.
        sequences: how sequences are planned.
        stored: how rows are written.
        settings: all that decides the bytes besides input and vocabulary, in plain values.
        tokenizer: its vocabulary goes into the set.
        input_sha256: of the formatted text.
    """
    lowercase = tokenizer.vocabulary.lowercase
    build = Build(
        folder=output / set_folder_name(sequences.sequence_length, lowercase, sequences.kind == "pairs"),
        record_name=MANIFEST,
        fingerprint=fingerprint_of(_VERSION, SCHEMA_VERSION, settings, input_sha256, tokenizer.sha256, lowercase),
        settings=settings,
        products=(f"{TRAIN_PREFIX}*.hdf5", f"{EVAL_PREFIX}*.hdf5"),
    )
    return SetPlan(build, sequences, stored, tokenizer, input_sha256)


def set_folder_name(sequence_length: int, lowercase: bool, next_sentence: bool) -> str:
    """Return the contracted name of a set's folder."""
    casing, task = "lowercase" if lowercase else "uppercase", str(next_sentence).lower()
    return f"sequences_{casing}_max_seq_len_{sequence_length}_next_seq_task_{task}"


def make_shards(plan: SetPlan, splits: Splits, pool: PoolConfig, progress_name: str) -> list[ShardRecord]:
    """Make the shards that are missing, and describe all, training ones first."""
    tasks = [task for prefix, blocks in splits.items() for task in _tasks(plan, prefix, blocks)]
    kept = {task.path: finished_shard(task) for task in tasks}
    missing = [task for task in tasks if kept[task.path] is None]
    with Progress(progress_name, sum(task.num_bytes for task in missing)) as progress:
        made = run_tasks(make_shard, missing, pool, ShardTask.describe, progress, lambda task: task.num_bytes)
    records = kept | {task.path: record for task, record in zip(missing, made, strict=True)}
    return [record for record in records.values() if record is not None]


def _tasks(plan: SetPlan, prefix: str, blocks: Sequence[TokenBlock]) -> list[ShardTask]:
    vocabulary, sequences = plan.tokenizer.vocabulary, plan.sequences
    length = sequences.sequence_length
    frame = Frame(length, vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id, plan.pairs)
    attributes = {
        "fingerprint": plan.build.fingerprint,
        "vocabulary_sha256": plan.tokenizer.sha256,
        "lowercase": vocabulary.lowercase,
        "seed": sequences.seed,
        "sequences": sequences.kind,
        "settings": plan.build.settings_text,
    }
    return [
        ShardTask(
            path=plan.build.folder / f"{prefix}{index}.hdf5",
            pieces=pieces,
            frame=frame,
            policy=plan.stored.policy,
            seed=sequences.seed,
            compression=plan.stored.compression,
            attributes=attributes,
        )
        for index, pieces in enumerate(deal_rows(blocks, length, plan.stored.rows_a_shard(length)))
    ]


def _lacks_shards(folder: Path) -> bool:
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    whole = all(sizes.get(record.name) == (record.bytes or sizes.get(record.name, -1)) for record in manifest.shards)
    return not whole or not {VOCABULARY_TEXT, TOKENIZER_JSON} <= sizes.keys()


def manifest_of(plan: SetPlan, splits: Splits, records: list[ShardRecord]) -> Manifest:
    """Describe a finished set."""
    vocabulary, length = plan.tokenizer.vocabulary, plan.sequences.sequence_length

    def sums(prefix: str) -> SplitCounts:
        blocks = splits[prefix]
        histogram = np.zeros(length + 1, np.int64)
        for block in blocks:
            histogram += block.histograms[length]
        return SplitCounts(
            documents=sum(block.documents for block in blocks),
            sequences=int(histogram.sum()),
            tokens=int(histogram @ np.arange(length + 1)),
            length_histogram=tuple(histogram.tolist()),
        )

    return Manifest(
        layout=plan.stored.layout,
        sequence_length=length,
        next_sentence=plan.pairs,
        vocabulary_sha256=plan.tokenizer.sha256,
        vocabulary_size=len(vocabulary.tokens),
        lowercase=vocabulary.lowercase,
        seed=plan.sequences.seed,
        settings=plan.build.settings,
        input_sha256=plan.input_sha256,
        fingerprint=plan.build.fingerprint,
        train=sums(TRAIN_PREFIX),
        eval=sums(EVAL_PREFIX),
        shards=tuple(records),
    )
