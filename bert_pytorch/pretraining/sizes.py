"""How much of an update each rank takes: as told for all, as its own command line says, or by how fast it is."""

import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bert_pytorch.data.batching import rows_of_ranks, sizes_of_ranks
from bert_pytorch.data.config import MEASURE
from bert_pytorch.data.dealing import spell_sizes
from bert_pytorch.models.attention_choice import sample_batch
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import batch_maker
from bert_pytorch.pretraining.recorded import sample_rows
from bert_pytorch.pretraining.session import Learner, Session
from bert_pytorch.runtime.device import forget_peak_memory
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.rendezvous import machine_name
from bert_pytorch.runtime.timing import seconds_per_call
from bert_pytorch.training.fast_paths import sample_lengths

logger = logging.getLogger(__name__)

STEPS = 8
"""A measured rank has so many eighths of the fastest one's size: equal devices, which never measure quite equal, have
equal sizes, and at most a sixteenth of the time is waited."""
MASKED_OF = 7
"""One token of so many is masked in what is measured."""


def shared_sizes(config: PretrainingConfig, world: World) -> PretrainingConfig:
    """Bring the sizes that command lines tell together; all ranks call this together.

    Rank 0's --local_batch_sizes holds for all.  Without one, ranks that were given a --local_batch_size each keep it.

    Returns:
        The configuration with sizes that are the same on every rank; `measure` stays what it is.

    Raises:
        ConfigError: on rank 0, if there are sizes for another number of ranks.
    """
    world.on_first(lambda: sizes_of_ranks(config, world.size))
    told = world.from_first(config.local_batch_sizes)
    own = world.from_first(world.gather(config.local_batch_size))
    if told is None and len(set(own)) > 1:
        told = spell_sizes(own)
    return config.model_copy(update={"local_batch_sizes": told})


def settle_sizes(session: Session, learner: Learner, saved: Mapping[str, Any]) -> PretrainingConfig:
    """Settle the size of every rank, by measuring where that is asked for; all ranks call this together.

    Args:
        session: its configuration is that of `shared_sizes`.
        learner: whose passes are measured.
        saved: `choices` of the checkpoint that is continued; empty for a new run or phase.

    Returns:
        The configuration with the sizes that hold for this session.
    """
    config, world = session.config, session.world
    if config.local_batch_sizes is None:
        return config
    sizes, why = sizes_of_ranks(config, world.size), "as told"
    if config.local_batch_sizes == MEASURE:
        sizes, why = _measured(session, learner, saved.get("measured_sizes"))
    machines = world.from_first(world.gather(machine_name(os.environ)))
    logger.info("micro-batches of at most: %s (%s)", describe_sizes(machines, sizes), why)
    return config.model_copy(update={"local_batch_sizes": spell_sizes(sizes)})


def measured_choices(session: Session) -> dict[str, Any]:
    """Return what a checkpoint keeps of sizes that were measured."""
    if session.config.local_batch_sizes != MEASURE:
        return {}
    return {"measured_sizes": list(sizes_of_ranks(session.settled, session.world.size))}


def describe_sizes(machines: Sequence[str], sizes: Sequence[int]) -> str:
    """Say what the ranks of each machine have, in the order of ranks."""
    told = []
    for machine, ranks in itertools.groupby(range(len(sizes)), lambda rank: machines[rank]):
        numbers = list(ranks)
        which = f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {numbers[0]} to {numbers[-1]}"
        told.append(f"{spell_sizes([sizes[rank] for rank in numbers])} on {machine} ({which})")
    return "; ".join(told)


def sizes_by_speed(speeds: Sequence[float], largest: int) -> tuple[int, ...]:
    """Return sizes in proportion to speeds, in steps of an eighth of the fastest one's; none is 0.

    Args:
        speeds: sequences a second of each rank.
        largest: size of the fastest.
    """
    eighths = [round(STEPS * speed / max(speeds)) for speed in speeds]
    return tuple(max(1, round(largest * part / STEPS)) for part in eighths)


def _measured(session: Session, learner: Learner, before: Sequence[int] | None) -> tuple[tuple[int, ...], str]:
    """Return sizes by measured speed, those of the session before where they fit these ranks."""
    config, world = session.config, session.world
    largest = world.from_first(config.local_batch_size if config.max_tokens is None else STEPS)
    if before is not None and len(before) == world.size and max(before) == largest:
        return tuple(before), "as this run did so far"
    if before is not None and len(before) != world.size:
        logger.info("micro-batches: %d ranks now, %d in the session before: measured anew", world.size, len(before))
    if world.size == 1:
        return (largest,), "the only rank"
    speeds = _speeds_of_all(session, learner)
    told = ", ".join(f"{speed:.3g}" for speed in speeds[:16]) + ("…" if len(speeds) > 16 else "")
    logger.info("micro-batches: measured %s sequences/s by rank", told)
    return sizes_by_speed(speeds, largest), "measured"


def _speeds_of_all(session: Session, learner: Learner) -> list[float]:
    world: World = session.world
    world.any(flag=False)  # all begin at once, as ranks that share a machine share its memory
    return world.from_first(world.gather(_sequences_per_second(session, learner)))


def _sequences_per_second(session: Session, learner: Learner) -> float:
    """Measure forward and backward passes of a micro-batch as large as any; no parameter, gradient or seed changes."""
    config, device = session.config, session.device
    model, batch = learner.trained(), _sample(session)
    counts = EachLoss(*[float(len(batch.input_ids))] * len(EachLoss._fields))

    def both_passes() -> None:
        with session.precision.autocast():
            terms = model(batch)
        terms.share_of_loss(config.loss_weights(), counts).backward()

    seconds = seconds_per_call(both_passes, device, warm_up=2, calls=5)
    learner.optimizer.zero_grad(set_to_none=True)
    forget_peak_memory(device)
    return (len(batch.input_ids) / session.corpus.training.sequence_length) / seconds


def _sample(session: Session) -> PackedBatch:
    """Return a micro-batch of training's form and size; nothing is read for it."""
    config, corpus, device = session.config, session.corpus, session.device
    longest, next_sentence = corpus.training.sequence_length, session.model_config.next_sentence
    if config.packing == "rows":
        rows = rows_of_ranks(config.model_copy(update={"local_batch_sizes": None}), longest, 1)[0]
        batches = batch_maker(corpus.training, corpus.vocabulary, config, next_sentence=next_sentence)
        return sample_rows(batches.row_shape(rows, config.max_sequences_per_row), device, next_sentence=next_sentence)
    most = config.local_batch_size if config.max_tokens is None else max(1, config.max_tokens // longest)
    batch = sample_batch(sample_lengths(most, longest, fixed_rows=False), device)
    masked = torch.arange(0, len(batch.input_ids), MASKED_OF, device=device)
    pairs = torch.zeros(most, dtype=torch.int64, device=device) if next_sentence else None
    return batch._replace(masked_positions=masked, labels=torch.zeros_like(masked), next_sentence_labels=pairs)
