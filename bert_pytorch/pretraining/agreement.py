"""What the ranks of a session agree on about its data before the first update: how much there is, what is left out."""

import logging
from collections.abc import Iterable

from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.runtime.distributed import World
from bert_pytorch.shards.opening import OnBadShard

logger = logging.getLogger(__name__)


def refuse_differing_data(world: World, training: Corpora, evaluation: Corpora | None) -> None:
    """Refuse ranks that see different data: they would take different numbers of steps and wait for each other.

    Raises:
        InputError: on every rank.
    """
    counts = [training.num_sequences, evaluation.num_sequences if evaluation is not None else 0]
    if world.sum(counts) != [count * world.size for count in counts]:
        raise InputError(
            f"rank {world.rank} finds {counts[0]} training and {counts[1]} held-out sequences, others other numbers. "
            "Give every node the same --input_dir."
        )


def leave_out_together(world: World, corpora: Corpora, before: Iterable[str]) -> None:
    """Leave out on every rank what any rank found damaged when it opened the data, and what was left out before.

    Args:
        world: the ranks.
        corpora: the training data.
        before: shards that earlier sessions of the run left out.
    """
    earlier = set(before)
    corpora.exclude(world.union([*corpora.excluded(), *earlier]))
    for name in corpora.excluded():
        why = "as in the session before; --on_bad_shard stop reads it again" if name in earlier else "it is damaged"
        logger.warning("left out: %s with its %s sequences (%s)", name, f"{corpora.sequences_of([name]):,}", why)


def survey_held_out(world: World, held_out: Corpora, on_bad_shard: OnBadShard) -> float:
    """Read the whole held-out set once, on rank 0, so that a damaged shard shows before training.

    With `skip` such a shard is left out of every evaluation, on every rank.

    Returns:
        The entropy of its tokens' frequencies: nats a token.

    Raises:
        DamagedShardError: with `stop`, naming file and row.
    """

    def survey() -> tuple[float, list[str]]:
        while True:
            try:
                return unigram_entropy(*held_out.sources), held_out.excluded()
            except DamagedShardError as error:
                name = held_out.name_of(error.path)
                if on_bad_shard == "stop" or name is None or name in held_out.excluded():
                    raise
                held_out.exclude([name])
                count = f"{held_out.sequences_of([name]):,}"
                logger.warning("left out of the held-out data: %s with its %s sequences. %s", name, count, error)

    entropy, excluded = world.on_first(survey)
    held_out.exclude(world.union([*excluded, *held_out.excluded()]))
    return entropy
