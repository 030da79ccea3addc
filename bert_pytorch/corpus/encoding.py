"""Formatted text to shards: the settings of `encode` and the whole story of one set.

A set is a folder; its shards are made block by block (`corpus.plan`), each by one worker, whole or absent.  An
interrupted build is started again and makes only what is missing; `manifest.json` is written last.
"""

import datetime
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from bert_pytorch.corpus.blocks import BlockTask, encode_block, finished_record
from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.plan import Block, DocumentTable, divide, find_documents, hold_out, text_files
from bert_pytorch.corpus.pool import PoolConfig, num_processes, run_tasks
from bert_pytorch.corpus.progress import Progress
from bert_pytorch.data.masking import MaskingConfig
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_json, exclusive_lock
from bert_pytorch.shards.layouts import BUILD_LOG, EVAL_PREFIX, MANIFEST, SCHEMA_VERSION, TRAIN_PREFIX
from bert_pytorch.shards.manifest import Manifest, ShardRecord, SplitCounts, read_manifest
from bert_pytorch.shards.writing import Compression
from bert_pytorch.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SHORTEST_SEQUENCE = 8

SequenceLength = Annotated[int, Field(ge=SHORTEST_SEQUENCE, le=65536)]


class EncodeConfig(MaskingConfig, PoolConfig):
    """Encode formatted text into sets of shards, one folder for each sequence length."""

    input: tuple[Path, ...] = ()
    """Formatted text: files, or folders searched for *.txt. One sentence a line, blank line between documents."""
    output: Path | None = None
    """Folder in which the sets' folders are made."""
    vocab_file: Path | None = None
    """vocab.txt or tokenizer.json, or a folder with one."""
    lowercase: bool = True
    """Casing of a vocab.txt; a tokenizer.json knows its own."""
    max_seq_len: tuple[SequenceLength, ...] = (128,)
    """Tokens of a sequence, special ones included; several lengths make several sets."""
    short_seq_prob: float = Field(0.1, ge=0, le=1)
    """How often a sequence aims at a random shorter length (BERT: 0.1)."""
    next_seq_prob: float = Field(0.5, ge=0, lt=1)
    """How often the second segment is a random text (BERT: 0.5); 0 makes single segments, no next-sentence task."""
    masking: Literal["dynamic", "static"] = "dynamic"
    """dynamic: masks are drawn in training. static: masks are written into the shards, in NVIDIA's layout."""
    dupe_factor: int = Field(1, ge=1, le=1000)
    """Passes over the text, each with other splits, partners and masks. NVIDIA's static sets have 5."""
    eval_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of the documents held out into eval_*.hdf5, at least one of two or more; 0 holds out none."""
    seed: int = Field(12345, ge=0)
    """Seed of every random choice."""
    block_bytes: int = Field(0, ge=0)
    """Text that becomes one shard, in bytes; 0 takes 1/16 of the corpus, between 1 and 32 MiB."""
    compression: Compression = "none"
    """none: readers map the file into memory. gzip: smaller, must be read whole."""
    overwrite: bool = False
    """Remove what an earlier build left in the sets' folders and start anew."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "input_dir": "--input",
        "output_dir": "--output",
        "uppercase": "--no-lowercase",
        "do_lower_case": "--lowercase",
        "max_seq_length": "--max_seq_len",
        "random_seed": "--seed",
        "next_sentence": "--next_seq_prob (0 for no next-sentence task)",
        "n_processes": "--processes",
        "nproc": "--processes",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name formatted text, a file or a folder."
        if self.output is None:
            yield "--output is missing: name a folder for the shards."
        if self.vocab_file is None:
            yield "--vocab_file is missing: name a vocab.txt, or a folder made by: python -m bert_pytorch.corpus vocab"
        if not self.max_seq_len:
            yield "--max_seq_len is empty: give one length or more, for example 128 512."
        if len(set(self.max_seq_len)) < len(self.max_seq_len):
            yield f"--max_seq_len: found {self.max_seq_len}, wanted each length once."


class SetPlan(NamedTuple):
    """One set to build: its folder and everything that decides its bytes."""

    build: Build
    sequence_length: int
    input_sha256: str
    blocks: list[Block]


def encode(config: EncodeConfig, tokenizer: Tokenizer, argv: Sequence[str] = ()) -> list[Path]:
    """Build one set for each sequence length and return their folders; finished ones are left as they are.

    Raises:
        InputError: if the text cannot be used, or a folder holds another build.
    """
    assert config.output is not None
    documents = find_documents(text_files(config.input))
    if documents.num_documents == 0:
        names = ", ".join(map(str, config.input))
        raise InputError(f"{names}: there is no text in it. Give formatted text: one sentence a line.")
    blocks = _plan_blocks(documents, config)
    folders = []
    for length in config.max_seq_len:
        plan = _plan_set(config, length, documents, blocks, tokenizer)
        with exclusive_lock(plan.build.folder, "builds"):
            _build_set(plan, config, tokenizer, argv)
        folders.append(plan.build.folder)
    return folders


def set_folder_name(sequence_length: int, lowercase: bool, next_sentence: bool) -> str:
    """Return the contracted name of a set's folder."""
    casing, task = "lowercase" if lowercase else "uppercase", str(next_sentence).lower()
    return f"sequences_{casing}_max_seq_len_{sequence_length}_next_seq_task_{task}"


def _plan_blocks(documents: DocumentTable, config: EncodeConfig) -> list[Block]:
    train, held_out = hold_out(documents, config.eval_fraction, config.seed)
    blocks = divide(train, TRAIN_PREFIX, config.block_bytes)
    return blocks + divide(held_out, EVAL_PREFIX, config.block_bytes, first_number=len(blocks))


def _plan_set(
    config: EncodeConfig, length: int, documents: DocumentTable, blocks: list[Block], tokenizer: Tokenizer
) -> SetPlan:
    assert config.output is not None
    names = ["short_seq_prob", "next_seq_prob", "masking", "dupe_factor", "eval_fraction", "seed", "block_bytes"]
    if config.masking == "static":
        names += ["masked_token_fraction", "max_predictions_per_seq"]
    settings: dict[str, Any] = {name: getattr(config, name) for name in [*names, "compression"]}
    settings["max_seq_len"] = length
    lowercase = tokenizer.vocabulary.lowercase
    build = Build(
        folder=config.output / set_folder_name(length, lowercase, config.next_seq_prob > 0),
        record_name=MANIFEST,
        fingerprint=fingerprint_of(SCHEMA_VERSION, settings, documents.sha256, tokenizer.sha256, lowercase),
        settings=settings,
        products=(f"{TRAIN_PREFIX}*.hdf5", f"{EVAL_PREFIX}*.hdf5"),
    )
    return SetPlan(build, length, documents.sha256, blocks)


def _build_set(plan: SetPlan, config: EncodeConfig, tokenizer: Tokenizer, argv: Sequence[str]) -> None:
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    build = plan.build
    if config.overwrite:
        build.clear()
    if not build.needs_work() and not _lacks_shards(build.folder):
        logger.info("%s: finished already, nothing to do", build.folder)
        return
    with build.in_work():
        tokenizer.save(build.folder)
        records = _make_shards(plan, config)
        if not any(record.name.startswith(TRAIN_PREFIX) for record in records):
            raise InputError(f"{', '.join(map(str, config.input))}: there is no word in this text to train on.")
        _write_build_log(build.folder, config, argv, started, time.monotonic() - clock)
        build.finish(_manifest(plan, tokenizer, records).model_dump(mode="json"))


def _make_shards(plan: SetPlan, pool: PoolConfig) -> list[ShardRecord]:
    """Make the shards that are missing, and describe all; blocks without a token make none."""
    build = plan.build
    tasks = [
        BlockTask(build.folder, plan.sequence_length, block, build.settings, build.fingerprint) for block in plan.blocks
    ]
    kept = {task.block.name: finished_record(task) for task in tasks}
    missing = [task for task in tasks if kept[task.block.name] is None]
    if len(missing) < len(tasks):
        logger.info("%s: %d of %d shards are there already", build.folder, len(tasks) - len(missing), len(tasks))
    with Progress(build.folder.name, sum(task.num_bytes for task in missing)) as progress:
        made = run_tasks(encode_block, missing, pool, BlockTask.describe, progress, lambda task: task.num_bytes)
    kept |= {task.block.name: record for task, record in zip(missing, made, strict=True)}
    return [record for record in kept.values() if record is not None]


def _lacks_shards(folder: Path) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and not all((folder / record.name).is_file() for record in manifest.shards)


def _manifest(plan: SetPlan, tokenizer: Tokenizer, records: list[ShardRecord]) -> Manifest:
    def sums(prefix: str) -> SplitCounts:
        chosen = [record for record in records if record.name.startswith(prefix)]
        return SplitCounts(
            documents=sum(record.documents for record in chosen),
            sequences=sum(record.rows for record in chosen),
            tokens=sum(record.tokens for record in chosen),
        )

    return Manifest(
        layout="nvidia" if plan.build.settings["masking"] == "static" else "native",
        sequence_length=plan.sequence_length,
        next_sentence=plan.build.settings["next_seq_prob"] > 0,
        vocabulary_sha256=tokenizer.sha256,
        vocabulary_size=len(tokenizer.vocabulary.tokens),
        lowercase=tokenizer.vocabulary.lowercase,
        seed=plan.build.settings["seed"],
        settings=plan.build.settings,
        input_sha256=plan.input_sha256,
        fingerprint=plan.build.fingerprint,
        train=sums(TRAIN_PREFIX),
        eval=sums(EVAL_PREFIX),
        shards=tuple(records),
    )


def _write_build_log(
    folder: Path, config: EncodeConfig, argv: Sequence[str], started: datetime.datetime, seconds: float
) -> None:
    log = {
        "argv": list(argv),
        "working_directory": str(Path.cwd()),
        "input": [str(path) for path in config.input],
        "host": platform.node(),
        "processes": num_processes(config),
        "process_id": os.getpid(),
        "python": sys.version,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }
    atomic_write_json(folder / BUILD_LOG, log)
