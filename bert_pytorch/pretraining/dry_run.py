"""`--dry_run`: every value with its origin, and the numbers that follow from them, without starting anything."""

from collections.abc import Iterator, Sequence

import torch

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.data.batching import describe_update, rows_of_ranks, sizes_of_ranks, total_amount
from bert_pytorch.data.config import MEASURE
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.dealing import deal_by_count, num_micro_batches, parse_sizes, spell_sizes
from bert_pytorch.data.opening import open_corpora, text_among
from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.models.size import memory_estimate, num_parameters
from bert_pytorch.optim.kfac.config import estimate_memory
from bert_pytorch.optim.schedules import warmup_updates
from bert_pytorch.optim.sharded import largest_state
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import check_fit, for_pairs

GUESSED_LENGTHS: tuple[int, ...] = (128, 512)
"""The two lengths that BERT is pretrained with, shown while no shards tell the true one."""


def describe_run(resolved: Resolved[PretrainingConfig], world_size: int) -> str:
    """Return the text that `--dry_run` prints."""
    config = resolved.settings
    rows = [(name, str(getattr(config, name)), origin) for name, origin in resolved.origins.items()]
    width = max(len(name) for name, _, _ in rows)
    value_width = min(48, max(len(value) for _, value, _ in rows))
    lines = [f"{name:{width}}  {value:{value_width}}  {origin}".rstrip() for name, value, origin in rows]
    settled = config.with_packing(fixed_shapes=config.device == "hpu")
    derived = [f"{name:{width}}  {value}" for name, value in _derived(settled, world_size)]
    return "\n".join(
        ["Configuration", "", *lines, "", "What follows from it", "", *derived, "", "Nothing was started.", ""]
    )


def _derived(config: PretrainingConfig, world_size: int) -> Iterator[tuple[str, str]]:
    if config.max_steps == 0:
        yield "updates", f"none: only the held-out losses of {config.init_checkpoint} on {config.eval_dir}"
        return
    ranks = _ranks(config, world_size)
    yield "ranks", str(ranks)
    yield "an update", describe_update(config)
    yield "micro-batches", _micro_batches(config, ranks)
    first, last = config.previous_phase_end_step + 1, config.previous_phase_end_step + config.max_steps
    yield "updates", f"{first:,} to {last:,}, warm-up {warmup_updates(config.max_steps, config.warmup_proportion):,}"
    shards = None
    texts = text_among(config.input_dir)
    if texts:
        yield "text", f"tokenized at the first start, not now: {' '.join(texts)}"
    elif config.input_dir:
        shards = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    model_config = _model_config(config, shards)
    lengths = GUESSED_LENGTHS
    if shards is not None:
        lengths = (shards.sequence_length,)
    elif config.max_seq_len is not None:
        lengths = (config.max_seq_len,)
    guessed = "" if len(lengths) == 1 else " (--input_dir tells the true length)"
    sequences = None if config.global_batch_tokens else total_amount(config, config.max_steps)
    if sequences is not None:
        yield "sequences", f"{sequences:,} in this phase"
    for length in lengths:
        most = config.global_batch_tokens or config.global_batch_size * length
        yield f"tokens, length {length}", f"at most {most:,} an update{guessed}"
    if shards is not None and sequences is not None:
        passes = sequences / shards.num_sequences
        yield "passes over the data", f"{passes:.2f} over {shards.num_sequences:,} sequences"
    if model_config is None:
        yield "model", "unknown without --model_config_file"
        return
    if shards is not None:
        check_fit(model_config, shards, " ".join(config.input_dir))
    yield "parameters", f"{num_parameters(model_config):,}"
    if config.teacher is not None:
        parameters = num_parameters(load_source(local_source(config.teacher)).config)
        yield "teacher", f"{parameters:,} parameters, {4 * parameters / 2**30:.2f} GiB more a rank"
    if config.kfac:
        yield "K-FAC", _kfac_memory(config, model_config, world_size)
    sharded = _largest_state(model_config, world_size) if config.shard_optimizer else None
    if sharded is not None:
        whole = memory_estimate(model_config, tokens=0, masked_tokens=0).optimizer_state / 2**30
        yield "optimizer state", f"{sharded / 2**30:.2f} GiB on the rank that keeps most, of {whole:.2f} GiB in all"
    for length in lengths:
        yield (
            f"memory, length {length}",
            _memory(config, model_config, sharded, _most_tokens(config, ranks, length), length),
        )


def _ranks(config: PretrainingConfig, world_size: int) -> int:
    """Return the ranks of the run: where --local_batch_sizes names them, one process may look for all."""
    told = config.local_batch_sizes
    return len(parse_sizes(told)) if world_size == 1 and told is not None and told != MEASURE else world_size


def _micro_batches(config: PretrainingConfig, ranks: int) -> str:
    sizes = sizes_of_ranks(config, ranks)
    if config.packing == "rows":
        size = f"{_spelled(sizes)} rows"
        if config.max_tokens is not None:
            size = f"as many rows as have room in {config.max_tokens:,} tokens"
        most = f"each of at most {config.max_sequences_per_row} sequences"
        return f"as many a rank and update as it takes, every one of {size}, {most}"
    if config.max_tokens is not None:
        return f"as many a rank and update as at most {config.max_tokens:,} tokens each take"
    if config.global_batch_tokens is not None:
        return f"as many a rank and update as at most {_spelled(sizes)} sequences each take"
    count = num_micro_batches(config.global_batch_size, sizes)
    most = _spelled(sizes) if len(set(sizes)) > 1 else str(_largest_share(config, sizes))
    return f"{count} a rank and update, of at most {most} sequences"


def _largest_share(config: PretrainingConfig, sizes: tuple[int, ...]) -> int:
    """Return the most sequences of any micro-batch."""
    return max(map(len, deal_by_count(config.global_batch_size, sizes, sizes.index(max(sizes)))))


def _spelled(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else spell_sizes(sizes)


def _most_tokens(config: PretrainingConfig, ranks: int, length: int) -> int:
    """Return the most tokens of a micro-batch of sequences of `length`."""
    sizes = sizes_of_ranks(config, ranks)
    if config.packing == "rows":
        return max(rows_of_ranks(config, length, ranks)) * length
    if config.max_tokens is not None:
        return config.max_tokens
    if config.global_batch_tokens is not None:
        return max(sizes) * length
    return _largest_share(config, sizes) * length


def _largest_state(model_config: ModelConfig, world_size: int) -> int:
    with torch.device("meta"):
        return largest_state(list(build_model(model_config).parameters()), world_size)


def _memory(config: PretrainingConfig, model_config: ModelConfig, sharded: int | None, tokens: int, length: int) -> str:
    sequences = -(-tokens // length)
    masked = min(config.max_predictions_per_seq, round(length * config.masked_token_fraction))
    if config.packing == "rows":  # of a row instead of a sequence; `fixed_rows.most_masked` is exact
        masked = round(length * config.masked_token_fraction) + config.max_sequences_per_row
        if config.masked_tokens_per_seq is not None:
            masked = min(length, config.masked_tokens_per_seq * config.max_sequences_per_row)
    estimate = memory_estimate(
        model_config,
        tokens=tokens,
        masked_tokens=sequences * masked,
        checkpoint_activations=config.checkpoint_activations,
    )
    if sharded is not None:
        estimate = estimate._replace(optimizer_state=sharded)
    parts = ", ".join(f"{name.replace('_', ' ')} {size / 2**30:.2f}" for name, size in estimate._asdict().items())
    return f"{estimate.total / 2**30:.2f} GiB a rank in fp32, estimated: {parts}"


def _kfac_memory(config: PretrainingConfig, model_config: ModelConfig, world_size: int) -> str:
    with torch.device("meta"):
        memory = estimate_memory(config, build_model(model_config), world_size)
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in memory._asdict().items())
    return f"{memory.total / 2**30:.2f} GiB more on the rank that has most: {parts}"


def _model_config(config: PretrainingConfig, shards: Corpora | None) -> ModelConfig | None:
    if config.model_config_file is not None:
        model_config = load_model_config(config.model_config_file)
    elif config.init_checkpoint is not None:
        model_config = load_source(local_source(config.init_checkpoint), config.hints()).config
    else:
        return None
    if shards is not None and config.model_config_file is None:
        model_config = for_pairs(model_config, shards)
    if shards is not None and shards.vocabulary is not None:
        return model_config.model_copy(update={"vocab_size": len(shards.vocabulary.tokens)})
    return model_config
