"""`--dry_run`: every value with its origin, and the numbers that follow from them, without starting anything."""

from collections.abc import Iterator

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.data.sampling import micro_batch_slices
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.models.size import memory_estimate, num_parameters
from bert_pytorch.optim.schedules import warmup_updates
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import check_fit
from bert_pytorch.shards.shard_set import ShardSet, open_shards

GUESSED_LENGTHS = (128, 512)
"""The two lengths that BERT is pretrained with, shown while no shards tell the true one."""


def describe_run(resolved: Resolved[PretrainingConfig], world_size: int) -> str:
    """Return the text that `--dry_run` prints."""
    config = resolved.settings
    rows = [(name, str(getattr(config, name)), origin) for name, origin in resolved.origins.items()]
    width = max(len(name) for name, _, _ in rows)
    value_width = min(48, max(len(value) for _, value, _ in rows))
    lines = [f"{name:{width}}  {value:{value_width}}  {origin}".rstrip() for name, value, origin in rows]
    derived = [f"{name:{width}}  {value}" for name, value in _derived(config, world_size)]
    return "\n".join(
        ["Configuration", "", *lines, "", "What follows from it", "", *derived, "", "Nothing was started.", ""]
    )


def _derived(config: PretrainingConfig, world_size: int) -> Iterator[tuple[str, str]]:
    if config.max_steps == 0:
        yield "updates", f"none: only the held-out losses of {config.init_checkpoint} on {config.eval_dir}"
        return
    slices = micro_batch_slices(config.global_batch_size, config.local_batch_size, 0, world_size)
    largest = max(part.stop - part.start for part in slices)
    yield "ranks", str(world_size)
    yield "micro-batches", f"{len(slices)} a rank and update, of at most {largest} sequences"
    first, last = config.previous_phase_end_step + 1, config.previous_phase_end_step + config.max_steps
    yield "updates", f"{first:,} to {last:,}, warm-up {warmup_updates(config.max_steps, config.warmup_proportion):,}"
    shards = open_shards(config.input_dir, "train") if config.input_dir is not None else None
    model_config = _model_config(config, shards)
    lengths = GUESSED_LENGTHS if shards is None else (shards.sequence_length,)
    guessed = "" if shards is not None else " (--input_dir tells the true length)"
    yield "sequences", f"{config.global_batch_size * config.max_steps:,} in this phase"
    for length in lengths:
        yield f"tokens, length {length}", f"at most {config.global_batch_size * length:,} an update{guessed}"
    if shards is not None:
        passes = config.global_batch_size * config.max_steps / shards.num_sequences
        yield "passes over the data", f"{passes:.2f} over {shards.num_sequences:,} sequences"
    if model_config is None:
        yield "model", "unknown without --model_config_file"
        return
    if shards is not None and config.input_dir is not None:
        check_fit(model_config, shards, config.input_dir)
    yield "parameters", f"{num_parameters(model_config):,}"
    for length in lengths:
        yield f"memory, length {length}", _memory(config, model_config, largest, length)


def _memory(config: PretrainingConfig, model_config: ModelConfig, sequences: int, length: int) -> str:
    masked = min(config.max_predictions_per_seq, round(length * config.masked_token_fraction))
    estimate = memory_estimate(
        model_config,
        tokens=sequences * length,
        masked_tokens=sequences * masked,
        checkpoint_activations=config.checkpoint_activations,
    )
    parts = ", ".join(f"{name.replace('_', ' ')} {size / 2**30:.2f}" for name, size in estimate._asdict().items())
    return f"{estimate.total / 2**30:.2f} GiB a rank in fp32, estimated: {parts}"


def _model_config(config: PretrainingConfig, shards: ShardSet | None) -> ModelConfig | None:
    if config.model_config_file is not None:
        model_config = load_model_config(config.model_config_file)
    elif config.init_checkpoint is not None:
        model_config = load_source(config.init_checkpoint).config
    else:
        return None
    if shards is not None and shards.vocabulary is not None:
        return model_config.model_copy(update={"vocab_size": len(shards.vocabulary.tokens)})
    return model_config
