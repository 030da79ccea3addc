"""Formatted text to shards: the settings of `encode` and its whole story.

Text is tokenized once for all lengths, block by block (`corpus.token_blocks`); when the sequences of every block are
counted, they are dealt to shards of equal size (`corpus.shard_rows`), one folder a length (`corpus.sets`).  Each file
is made by one worker, whole or absent.  An interrupted build is started again and makes only what is missing;
`manifest.json` is written last, and the token files are removed.
"""

import contextlib
import datetime
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bert_pytorch.corpus.builds import fingerprint_of
from bert_pytorch.corpus.executors.pool import PoolConfig, num_processes, run_tasks
from bert_pytorch.corpus.plan import Block, DocumentTable, divide, find_documents, hold_out, text_files
from bert_pytorch.corpus.sequences import Kind
from bert_pytorch.corpus.sets import SetPlan, Splits, StoredRows, make_shards, manifest_of, plan_set
from bert_pytorch.corpus.token_blocks import (
    SequenceSettings,
    TokenBlock,
    TokenTask,
    finished_block,
    make_token_block,
)
from bert_pytorch.data.masking import MaskingConfig, policy_for
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_json, exclusive_lock, remove_partial_files
from bert_pytorch.progress import Progress
from bert_pytorch.shards.layouts import BUILD_LOG, EVAL_PREFIX, LONGEST_SEQUENCE, TRAIN_PREFIX
from bert_pytorch.shards.writing import Compression
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.vocabulary import MERGES_TEXT, VOCABULARY_FILES

logger = logging.getLogger(__name__)

SHORTEST_SEQUENCE = 8

SequenceLength = Annotated[int, Field(ge=SHORTEST_SEQUENCE, le=LONGEST_SEQUENCE)]
Probability = Annotated[float, Field(ge=0, le=1)]


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
    """Tokens of a sequence, special ones included; several lengths make several sets in one pass over the text."""
    sequences: Kind = "pairs"
    """pairs: two segments and the next-sentence task (BERT). full_sentences: single segments that go on into the next
    document after a separator. doc_sentences: single segments of one document (both: RoBERTa, §4.2)."""
    short_seq_prob: tuple[Probability, ...] = (0.1,)
    """How often a sequence aims at a random shorter length: one value, or one for each length (BERT: 0.1 for 128 and 0
    for 512; RoBERTa: 0)."""
    next_seq_prob: float = Field(0.5, ge=0, lt=1)
    """How often the second segment of a pair is a random text (BERT: 0.5); 0 is the same as doc_sentences."""
    masking: Literal["dynamic", "static"] = "dynamic"
    """dynamic: masks are drawn in training. static: masks are written into the shards, in NVIDIA's layout."""
    dupe_factor: int = Field(1, ge=1, le=1000)
    """Passes over the text, each with other splits, partners and masks. NVIDIA's static sets have 5."""
    eval_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of the documents held out into eval_*.hdf5, at least one of two or more; 0 holds out none."""
    seed: int = Field(12345, ge=0)
    """Seed of every random choice."""
    shard_bytes: int = Field(64 << 20, gt=0)
    """Most bytes of a shard before compression; shards are equal within one sequence."""
    shard_sequences: int = Field(0, ge=0)
    """Most sequences of a shard; 0 lets shard_bytes decide."""
    bin_size: int = Field(0, ge=0)
    """Sort sequences by length into bins this many tokens wide, so that a shard holds similar lengths; 0 does not."""
    block_bytes: int = Field(0, ge=0)
    """Text that a worker holds at a time; 0 takes 1/16 of the corpus or 16 average documents, between 1 and 16 MiB.
    Random second segments come from the same block."""
    compression: Compression = "none"
    """none: readers map the file into memory. gzip: smaller, must be read whole."""
    overwrite: bool = False
    """Remove what an earlier build left in the sets' folders and start anew."""

    renamed_flags: ClassVar[dict[str, str]] = {
        **MaskingConfig.renamed_flags,
        "input_dir": "--input",
        "output_dir": "--output",
        "uppercase": "--no-lowercase",
        "do_lower_case": "--lowercase",
        "max_seq_length": "--max_seq_len",
        "random_seed": "--seed",
        "next_sentence": "--next_seq_prob (0 for no next-sentence task)",
        "n_processes": "--processes",
        "nproc": "--processes",
        "bin-size": "--bin_size",
        "num_blocks": "--shard_bytes or --shard_sequences",
    }

    @property
    def kind(self) -> Kind:
        """What the sequences are, a probability of 0 taken for what it means."""
        return "doc_sentences" if self.sequences == "pairs" and self.next_seq_prob == 0 else self.sequences

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
        if len(self.short_seq_prob) not in (1, len(self.max_seq_len)):
            yield (
                f"--short_seq_prob: found {len(self.short_seq_prob)} values, wanted one, or one for each of the "
                f"{len(self.max_seq_len)} lengths of --max_seq_len."
            )


def encode(config: EncodeConfig, tokenizer: Tokenizer, argv: Sequence[str] = ()) -> list[Path]:
    """Build one set for each sequence length and return their folders; finished ones are left as they are.

    Raises:
        InputError: if the text cannot be used, or a folder holds another build.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    documents = find_documents(text_files(config.input, config.output), config)
    if documents.num_documents == 0:
        raise InputError(f"{_names(config.input)}: there is no text in it. Give formatted text: one sentence a line.")
    plans = _plan_sets(config, tokenizer, documents.sha256)
    with contextlib.ExitStack() as held:
        for plan in plans:
            held.enter_context(exclusive_lock(plan.build.folder, "builds"))
            if config.overwrite:
                plan.build.clear()
                for name in (*VOCABULARY_FILES, MERGES_TEXT):
                    (plan.build.folder / name).unlink(missing_ok=True)
        due = [plan for plan in plans if plan.needs_work()]
        for plan in plans:
            if plan not in due:
                logger.info("%s: finished already, nothing to do", plan.build.folder)
        if due:
            with _token_folder(config, plans) as folder:
                splits = _make_token_blocks(config, plans, folder, documents)
                if not any(any(rows) for block in splits[TRAIN_PREFIX] for rows in block.rows.values()):
                    shutil.rmtree(folder)
                    raise InputError(f"{_names(config.input)}: there is no word in this text to train on.")
                for plan in due:
                    _build_set(plan, splits, config)
                    _write_build_log(plan.build.folder, config, argv, started, time.monotonic() - clock)
        _remove_token_folders(config)
    return [plan.build.folder for plan in plans]


def _plan_sets(config: EncodeConfig, tokenizer: Tokenizer, input_sha256: str) -> list[SetPlan]:
    assert config.output is not None
    names = ["masking", "dupe_factor", "eval_fraction", "seed"]
    names += ["shard_bytes", "shard_sequences", "bin_size", "block_bytes", "compression"]
    policy = None
    if config.masking == "static":
        names += MaskingConfig.model_fields
        policy = policy_for(config, tokenizer.vocabulary)
    shared: dict[str, Any] = {name: getattr(config, name) for name in names}
    if config.shard_sequences:
        shared["shard_bytes"] = 0  # it decides nothing
    shared["sequences"] = config.kind
    shared["next_seq_prob"] = config.next_seq_prob if config.kind == "pairs" else 0.0
    plans = []
    for index, length in enumerate(config.max_seq_len):
        short = config.short_seq_prob[index % len(config.short_seq_prob)]
        sequences = SequenceSettings(
            sequence_length=length,
            kind=config.kind,
            short_seq_prob=short,
            next_seq_prob=shared["next_seq_prob"],
            dupe_factor=config.dupe_factor,
            seed=config.seed,
            bin_size=config.bin_size,
        )
        settings = {**shared, "max_seq_len": length, "short_seq_prob": short}
        slots = policy and policy._replace(max_predictions=_slots(config, length))
        stored = StoredRows(slots, config.compression, config.shard_bytes, config.shard_sequences)
        plans.append(plan_set(config.output.absolute(), sequences, stored, settings, tokenizer, input_sha256))
    return plans


def _slots(config: EncodeConfig, length: int) -> int:
    """Return the slots for masked tokens that rows need, in tens as NVIDIA's sets have them: 20 for 128, 80 for 512."""
    most = config.masked_tokens_per_seq or round(config.masked_token_fraction * (length - 2))
    most = min(most, length - 2)
    return min(config.max_predictions_per_seq, -(-max(most, 1) // 10) * 10)


@contextlib.contextmanager
def _token_folder(config: EncodeConfig, plans: Sequence[SetPlan]) -> Iterator[Path]:
    """Yield the folder of the token files, named by all that decides them."""
    assert config.output is not None
    name = fingerprint_of([plan.build.fingerprint for plan in plans])[:16]
    folder = config.output.absolute() / f".tokens-{name}"
    if config.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    with exclusive_lock(folder, "builds"):
        remove_partial_files(folder)
        plans[0].tokenizer.save(folder)
        try:
            yield folder
        except BaseException:
            remove_partial_files(folder)
            raise


def _remove_token_folders(config: EncodeConfig) -> None:
    """Remove the token files of this build and of those given up, but not of one in work."""
    assert config.output is not None
    for folder in config.output.absolute().glob(".tokens-*"):
        with contextlib.suppress(InputError), exclusive_lock(folder, "builds"):
            shutil.rmtree(folder)


def _make_token_blocks(
    config: EncodeConfig, plans: Sequence[SetPlan], folder: Path, documents: DocumentTable
) -> Splits:
    """Make the token files that are missing, and describe all."""
    sets = tuple(plan.sequences for plan in plans)
    train, held_out = _plan_blocks(documents, config)
    if config.kind == "pairs" and any(block.documents.num_documents == 1 for block in train):
        logger.warning(
            "some blocks of text are a single document, whose random second segments come from itself: raise "
            "--block_bytes, or divide the documents."
        )
    tasks = [TokenTask(folder, block, sets) for block in [*train, *held_out]]
    kept = [finished_block(task) for task in tasks]
    missing = [task for task, block in zip(tasks, kept, strict=True) if block is None]
    if len(missing) < len(tasks):
        logger.info("%d of %d blocks of text are tokenized already", len(tasks) - len(missing), len(tasks))
    with Progress("tokenize", sum(task.num_bytes for task in missing)) as progress:
        made = run_tasks(make_token_block, missing, config, TokenTask.describe, progress, lambda task: task.num_bytes)
    rest = iter(made)
    blocks: list[TokenBlock] = [block if block is not None else next(rest) for block in kept]
    return {TRAIN_PREFIX: blocks[: len(train)], EVAL_PREFIX: blocks[len(train) :]}


def _plan_blocks(documents: DocumentTable, config: EncodeConfig) -> tuple[list[Block], list[Block]]:
    train, held_out = hold_out(documents, config.eval_fraction, config.seed)
    blocks = divide(train, TRAIN_PREFIX, config.block_bytes)
    return blocks, divide(held_out, EVAL_PREFIX, config.block_bytes, first_number=len(blocks))


def _build_set(plan: SetPlan, splits: Splits, config: EncodeConfig) -> None:
    folder = plan.build.folder
    with plan.build.in_work():
        plan.tokenizer.save(folder)
        records = make_shards(plan, splits, config, folder.name)
        plan.build.finish(manifest_of(plan, splits, records).model_dump(mode="json"))


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


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
