"""`inspect shard`: its settings and its story: what a shard says about itself, then some of its rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import tyro
from pydantic import Field

from bert_pytorch.data.held_out import EVALUATION_SEED
from bert_pytorch.data.masking import EvaluationMaskingConfig, MaskingConfig, evaluation_policy, policy_for, sample_keys
from bert_pytorch.errors import InputError
from bert_pytorch.files import sha256_of
from bert_pytorch.inspect.rows import samples_of
from bert_pytorch.inspect.samples import Words, legend, sample_lines
from bert_pytorch.inspect.terminal import Color, paint, printable, wants_color
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.layouts import is_held_out
from bert_pytorch.shards.manifest import Manifest, read_manifest
from bert_pytorch.shards.opening import find_shards
from bert_pytorch.shards.row_checks import refuse_unsound
from bert_pytorch.shards.streams import read_rows
from bert_pytorch.shards.vocabularies import refuse_other_vocabulary, vocabularies_beside
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary
from bert_pytorch.vocabulary import read_vocabulary


class ShardConfig(MaskingConfig, EvaluationMaskingConfig):
    """Show a shard: its header, and some rows decoded, with masks marked."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Shards, or folders: of a folder its first shard."""
    num_samples: int = Field(3, ge=0)
    """Rows shown, drawn at random with --seed; 0 shows the header alone."""
    index: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of the rows shown, from 0, instead of random ones."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Which rows are drawn; where masking is dynamic also the training's --seed, whose masks are shown."""
    epoch: int = Field(0, ge=0)
    """Pass over the data whose dynamic masks are shown."""
    color: Color = "auto"
    """auto: on a terminal, unless $NO_COLOR is set."""
    vocab_file: Path | None = None
    """vocab.txt or tokenizer.json, or a folder with one, where none lies beside the shard."""
    lowercase: bool | None = None
    """Casing of a vocab.txt where no file beside it says it."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.paths:
            yield "no shard is named: type a file (*.hdf5) or a folder with shards."


def describe_shards(config: ShardConfig) -> Iterator[str]:
    """Yield the lines that show each shard.

    Raises:
        InputError: if a shard or a vocabulary cannot be used.
    """
    color = wants_color(config.color)
    for path in config.paths:
        found = [path] if path.is_file() else [*find_shards(path, "train"), *find_shards(path, "eval")]
        if not found:
            raise InputError(f"{path}: no shard (*.hdf5) found. Name a folder with shards, or a file.")
        if len(found) > 1:
            yield f"{printable(str(path))}: {len(found)} shards, of which the first is shown"
        yield from _describe(found[0], config, color)
        yield ""


def _describe(path: Path, config: ShardConfig, color: bool) -> Iterator[str]:
    header = read_header(path)
    manifest = read_manifest(path.parent)
    yield paint(printable(str(path)), "heading", color)
    for name, value in [*_header_lines(header), *_attribute_lines(header), ("SHA-256", _checksum(path, manifest))]:
        yield f"  {name:<27}{printable(value)}"
    indices = _chosen(header, config)
    if not len(indices):
        return
    vocabulary = _vocabulary(header, config)
    if vocabulary is None:
        yield "  no vocabulary beside it, so ids are shown; --vocab_file vocab.txt shows words"
    words = Words(None if vocabulary is None else tokenizer_from_vocabulary(vocabulary))
    rows = read_rows(header, indices)
    refuse_unsound(path, rows, indices, vocabulary)
    keys = policy = None
    if vocabulary is not None:
        if rows.static_masks is None:
            held_out = is_held_out(path.name)
            seed, epoch = (EVALUATION_SEED, 0) if held_out else (config.seed, config.epoch)
            policy = evaluation_policy(config, vocabulary) if held_out else policy_for(config, vocabulary)
            yield _about_dynamic_masks(path, config)
            keys = sample_keys(seed, epoch, _rows_before(path) + indices)
    samples = list(samples_of(rows, keys, vocabulary, policy))
    yield f"  {legend(words, any(sample.masked.any() for sample in samples), color)}"
    for number, sample in zip(indices.tolist(), samples, strict=True):
        yield ""
        label = sample.next_sentence_label
        next_is = {0: "the true one", 1: "a random text"}.get(label or 0, "neither 0 nor 1")
        task = "" if label is None else f"; next sentence: {next_is} (label {label})"
        title = f"row {number}: {len(sample.input_ids)} tokens, {int(sample.masked.sum())} masked{task}"
        yield paint(title, "heading", color)
        yield from sample_lines(sample, words, color)


def _about_dynamic_masks(path: Path, config: ShardConfig) -> str:
    held_out = is_held_out(path.name)
    names = (EvaluationMaskingConfig if held_out else MaskingConfig).model_fields
    amount = " ".join(f"--{name} {getattr(config, name)}" for name in names if getattr(config, name) is not None)
    if held_out:
        return f"  masks are dynamic: shown are those of every evaluation on this folder with {amount}"
    return (
        f"  masks are dynamic: shown are those of epoch {config.epoch} of a training on this folder "
        f"with --seed {config.seed} and {amount}"
    )


def _header_lines(header: Header) -> Iterator[tuple[str, str]]:
    masking = "dynamic masking" if header.layout == "native" else "static masking"
    yield "layout", f"{header.layout} ({masking})"
    yield "rows", f"{header.num_rows:,} of up to {header.sequence_length} tokens"
    yield "next sentence", "pairs with a label" if header.next_sentence else "none: single segments"
    yield "storage", "contiguous, can be memory-mapped" if header.offsets is not None else _storage(header)
    for name, (dtype, shape) in header.columns.items():
        yield f"  {name}", f"{np.dtype(dtype).name} [{', '.join(map(str, shape))}]"


def _storage(header: Header) -> str:
    with h5py.File(header.path, "r") as file:
        filters = sorted({str(file[name].compression or "chunked") for name in header.columns})
    return f"{', '.join(filters)}; training decompresses it into its cache once"


def _attribute_lines(header: Header) -> Iterator[tuple[str, str]]:
    for name, value in sorted(header.attributes.items()):
        if name == "settings" and isinstance(value, str):
            try:
                settings: Any = json.loads(value)
            except ValueError:
                settings = None
            if isinstance(settings, dict):
                value = ", ".join(f"{key} {json.dumps(setting)}" for key, setting in settings.items())
        yield f"@{name}", str(value)


def _checksum(path: Path, manifest: Manifest | None) -> str:
    digest = sha256_of(path)
    if manifest is None:
        return f"{digest} (no manifest beside it)"
    record = next((record for record in manifest.shards if record.name == path.name), None)
    if record is None:
        return f"{digest}: the manifest does not name this file"
    return f"{digest}: {'as in' if record.sha256 == digest else 'NOT that of'} the manifest"


def _chosen(header: Header, config: ShardConfig) -> np.ndarray:
    outside = [index for index in config.index if index >= header.num_rows]
    if outside:
        raise InputError(
            f"{header.path}: --index: found {', '.join(map(str, outside))}, wanted 0 to {header.num_rows - 1}."
        )
    if config.index:
        return np.array(config.index, np.int64)
    count = min(config.num_samples, header.num_rows)
    return np.sort(np.random.default_rng(config.seed).choice(header.num_rows, count, replace=False))


def _vocabulary(header: Header, config: ShardConfig) -> Vocabulary | None:
    if config.vocab_file is not None:
        vocabulary, name = read_vocabulary(config.vocab_file, config.lowercase), str(config.vocab_file)
    else:
        beside = vocabularies_beside(header.path, [ShardEntry.of(header)], True)
        if not beside:
            return None
        (place, vocabulary), *_ = beside.items()
        name = str(place)
    refuse_other_vocabulary([ShardEntry.of(header)], vocabulary, name)
    return vocabulary


def _rows_before(path: Path) -> int:
    """Count the rows of the shards that stand before this one in its part of its folder."""
    shards = find_shards(path.parent, "eval" if is_held_out(path.name) else "train")
    before = [shard for shard in shards if shard.parent.samefile(path.parent)]
    places = [place for place, shard in enumerate(before) if shard.name == path.name]
    return sum(read_header(shard).num_rows for shard in before[: places[0] if places else 0])
