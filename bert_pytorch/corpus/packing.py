"""`corpus pack`: sets of shards to Habana's packed layout, shard by shard, every sequence exactly once."""

import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.pack_metadata import describe_packing
from bert_pytorch.corpus.packed_shards import PackTask, finished_pack, pack_shard
from bert_pytorch.corpus.sequences import Frame
from bert_pytorch.data.masking import MaskingConfig, policy_for
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_json, exclusive_lock, sha256_of
from bert_pytorch.progress import Progress
from bert_pytorch.shards.layouts import BUILD_LOG, EVAL_PREFIX, MANIFEST, TRAIN_PREFIX
from bert_pytorch.shards.manifest import Manifest, ShardRecord, SplitCounts, read_manifest
from bert_pytorch.shards.opening import Split, find_shards, open_shards
from bert_pytorch.shards.shard_set import ShardSet
from bert_pytorch.shards.streams import read_parts
from bert_pytorch.shards.writing import Compression
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.vocabulary import read_vocabulary, vocabulary_sha256

logger = logging.getLogger(__name__)

_VERSION = 2


class PackConfig(MaskingConfig, PoolConfig):
    """Pack the sequences of a set into rows of its length, several a row, in Habana's layout."""

    input: Path | None = None
    """Set of shards: native ones are masked now, NVIDIA's keep their masks."""
    output: Path | None = None
    """Folder for the packed shards; `{output}_metadata.json` beside it is what Habana's training reads."""
    vocab_file: Path | None = None
    """Vocabulary, where none lies beside the shards."""
    max_sequences_per_pack: int = Field(3, ge=1, le=4096)
    """Sequences of a row at most (Habana: 3, which is all that their model tells apart)."""
    seed: int = Field(12345, ge=0)
    """Seed of the masks of native sets."""
    compression: Compression = "none"
    """none: readers map the file into memory. gzip: smaller, must be read whole."""
    overwrite: bool = False
    """Remove what an earlier build left in the folder and start anew."""

    renamed_flags: ClassVar[dict[str, str]] = {
        **MaskingConfig.renamed_flags,
        "input_dir": "--input",
        "output_dir": "--output",
        "max_sequence_length": "nothing: the shards say how long their rows are",
        "max_seq_length": "nothing: the shards say how long their rows are",
        "max_predictions_per_sequence": "--max_predictions_per_seq",
        "train_batch_size": "nothing: packing does not depend on it",
        "local_rank": "nothing: --processes spreads the work",
        "disable_progress_bar": "nothing: a bar is shown on terminals only",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.input is None:
            yield "--input is missing: name a set of shards, made by: python -m bert_pytorch.corpus encode"
        if self.output is None:
            yield "--output is missing: name a folder for the packed shards."
        if self.input is not None and self.output is not None:
            if self.output.absolute().is_relative_to(self.input.absolute()):
                yield "--output: found a folder in the input's or that itself, wanted another: it is searched."


def pack(config: PackConfig) -> Path:
    """Pack a set and return its folder; a finished one is left as it is.

    Raises:
        InputError: if the set cannot be used, or the folder holds another build.
    """
    assert config.input is not None
    assert config.output is not None
    given = None if config.vocab_file is None else read_vocabulary(config.vocab_file)
    parts: dict[str, ShardSet] = {TRAIN_PREFIX: open_shards(config.input, "train", given)}
    if find_shards(config.input, "eval"):
        parts[EVAL_PREFIX] = open_shards(config.input, "eval", given)
    training = parts[TRAIN_PREFIX]
    vocabulary = training.vocabulary
    if vocabulary is None:
        raise InputError(f"{config.input}: no vocabulary beside the shards. Name theirs: --vocab_file vocab.txt")
    if training.headers[0].layout == "packed":
        raise InputError(f"{config.input}: it is packed already. Name the set that it was made of.")
    folder, tokenizer = config.output.absolute(), Tokenizer(vocabulary)
    names = ["max_sequences_per_pack", "compression"]
    names += [] if training.static else ["seed", *MaskingConfig.model_fields]
    settings = {name: getattr(config, name) for name in names}
    contents = {prefix: _contents(shards) for prefix, shards in parts.items()}
    build = Build(
        folder=folder,
        record_name=MANIFEST,
        fingerprint=fingerprint_of(_VERSION, settings, contents, tokenizer.sha256),
        settings=settings,
        products=(f"{TRAIN_PREFIX}*.hdf5", f"{EVAL_PREFIX}*.hdf5"),
    )
    with exclusive_lock(folder, "builds"):
        if config.overwrite:
            build.clear()
        if not build.needs_work():
            logger.info("%s: finished already, nothing to do", folder)
            return folder
        started = datetime.datetime.now(datetime.UTC)
        with build.in_work():
            tokenizer.save(folder)
            tasks = [task for prefix, shards in parts.items() for task in _tasks(config, build, prefix, shards)]
            made = _pack_missing(tasks, config, folder.name)
            manifest = _manifest(config, build, parts, made)
            packed = [task.target for task in tasks if task.target.name.startswith(TRAIN_PREFIX)]
            metadata = describe_packing(packed, training.sequence_length, config.max_sequences_per_pack)
            atomic_write_json(Path(f"{folder}_metadata.json"), metadata)
            atomic_write_json(folder / BUILD_LOG, {"input": str(config.input), "started": started.isoformat()})
            build.finish(manifest.model_dump(mode="json"))
    return folder


def _pack_missing(tasks: list[PackTask], config: PackConfig, name: str) -> list[ShardRecord]:
    kept = [finished_pack(task) for task in tasks]
    missing = [task for task, one in zip(tasks, kept, strict=True) if one is None]
    with Progress(name, sum(task.num_bytes for task in missing)) as progress:
        made = iter(run_tasks(pack_shard, missing, config, PackTask.describe, progress, lambda task: task.num_bytes))
    return [one if one is not None else next(made) for one in kept]


def _tasks(config: PackConfig, build: Build, prefix: str, shards: ShardSet) -> Iterator[PackTask]:
    vocabulary = shards.vocabulary
    assert vocabulary is not None
    frame = Frame(
        shards.sequence_length, vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id, shards.has_next_sentence
    )
    policy = None if shards.static else policy_for(config, vocabulary)
    masked = config.max_predictions_per_seq
    if shards.static:
        masked = max(header.columns["masked_lm_positions"][1][1] for header in shards.headers)
    starts = np.cumsum(shards.shard_sizes) - shards.shard_sizes
    for number, header in enumerate(shards.headers):
        yield PackTask(
            source=header.path,
            target=build.folder / f"{prefix}{number}.hdf5",
            first_number=int(starts[number]),
            frame=frame,
            policy=policy,
            seed=config.seed,
            max_sequences=config.max_sequences_per_pack,
            mask_slots=masked + config.max_sequences_per_pack,
            compression=config.compression,
            attributes={
                "fingerprint": build.fingerprint,
                "vocabulary_sha256": vocabulary_sha256(vocabulary),
                "lowercase": vocabulary.lowercase,
                "sequences": str(header.attributes.get("sequences", "")),
                "settings": build.settings_text,
            },
        )


def _contents(shards: ShardSet) -> list[list[Any]]:
    """Return what decides a part's bytes: rows and checksum of each shard, read where no manifest tells it."""
    told: dict[Path, str] = {}
    for folder in {path.parent for path in shards.paths}:
        manifest = read_manifest(folder)
        if manifest is not None:
            told |= {folder / record.name: record.sha256 for record in manifest.shards}
    sums = [told.get(path) or sha256_of(path) for path in shards.paths]
    return [[int(size), found] for size, found in zip(shards.shard_sizes, sums, strict=True)]


def _manifest(config: PackConfig, build: Build, parts: dict[str, ShardSet], records: list[ShardRecord]) -> Manifest:
    training = parts[TRAIN_PREFIX]
    vocabulary = training.vocabulary
    assert vocabulary is not None
    nothing = SplitCounts(documents=0, sequences=0, tokens=0)
    splits: dict[Split, SplitCounts] = {}
    for split, prefix in (("train", TRAIN_PREFIX), ("eval", EVAL_PREFIX)):
        splits[split] = _counts(parts[prefix], split) if prefix in parts else nothing  # type: ignore[index, arg-type]
    return Manifest(
        layout="packed",
        sequence_length=training.sequence_length,
        next_sentence=training.has_next_sentence,
        vocabulary_sha256=vocabulary_sha256(vocabulary),
        vocabulary_size=len(vocabulary.tokens),
        lowercase=vocabulary.lowercase,
        seed=0 if training.static else config.seed,
        settings=build.settings,
        input_sha256=fingerprint_of([_contents(shards) for shards in parts.values()]),
        fingerprint=build.fingerprint,
        train=splits["train"],
        eval=splits["eval"],
        shards=tuple(records),
    )


def _counts(shards: ShardSet, split: Split) -> SplitCounts:
    folders = {path.parent for path in shards.paths}
    manifests = [read_manifest(folder) for folder in sorted(folders)]
    if len(manifests) == 1 and manifests[0] is not None:
        return manifests[0].train if split == "train" else manifests[0].eval
    histogram = np.zeros(shards.sequence_length + 1, np.int64)
    for header in shards.headers:
        for rows in read_parts(header):
            histogram += np.bincount(rows.lengths, minlength=len(histogram))
    tokens = int(histogram @ np.arange(len(histogram)))
    return SplitCounts(
        documents=0, sequences=int(histogram.sum()), tokens=tokens, length_histogram=tuple(histogram.tolist())
    )
