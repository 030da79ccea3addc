"""The loader of a training run: plan, then make, ahead in threads.

An update is a pure function of its position in the stream of samples and of its number in the phase, so that resuming
is asking for another position; threads only compute ahead.  Who calls: `pretraining.assembly` builds the loader,
`training` draws from it.
"""

import collections
import contextlib
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.batching import refuse_small_budgets, rows_of_ranks, sizes_of_ranks
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.fixed_rows import RowShape
from bert_pytorch.data.planning import UpdatePlan, UpdatePlanner
from bert_pytorch.errors import BertPytorchError, DamagedShardError, WorkerError, explain_os_error
from bert_pytorch.records import MicroBatch


class Update(NamedTuple):
    """What one rank computes in one optimizer update."""

    micro_batches: list[MicroBatch]
    """As many on every rank; one may be empty of sequences where the batch is smaller than the ranks need."""
    epoch: int
    """The pass over the data that the update's last sample belongs to, from 0."""
    start_position: int
    """Samples consumed before this update, over all ranks."""
    end_position: int
    """Samples consumed once this update is done, over all ranks."""

    @property
    def num_sequences(self) -> int:
        """Samples of this update over all ranks."""
        return self.end_position - self.start_position

    @property
    def num_masked(self) -> int:
        """Masked tokens on this rank."""
        return sum(batch.num_masked for batch in self.micro_batches)

    @property
    def num_pairs(self) -> int:
        """Next-sentence labels on this rank."""
        return sum(batch.num_pairs for batch in self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Real tokens on this rank."""
        return sum(batch.num_tokens for batch in self.micro_batches)


class TrainingLoader:
    """All updates of a phase, for one rank."""

    def __init__(self, batches: BatchMaker, config: DataConfig, *, rank: int = 0, world_size: int = 1) -> None:
        self.corpora = batches.corpora
        length = self.corpora.sequence_length
        refuse_small_budgets(config, length, sizes_of_ranks(config, world_size), updates=True)
        self.batches = batches
        self.config = config
        self.row_shape: RowShape | None = None
        if config.packing == "rows":
            rows = rows_of_ranks(config, length, world_size)[rank]
            self.row_shape = batches.row_shape(rows, config.max_sequences_per_row)
        self._planner = UpdatePlanner(self.corpora, config, self.row_shape, rank=rank, world_size=world_size)
        self._window: Hashable = None

    def plan(self, position: int, number: int) -> UpdatePlan:
        """Decide which samples this rank computes in update `number` of the phase, from 0, after `position` samples.

        Shards that no update from here on needs are let go of.
        """
        window = self._window_at(position)
        if window != self._window:
            self._window = window
            self.corpora.expect(self._planner.shards_from(position))
        return self._planner.plan(position, number)

    def update_at(self, position: int, number: int = 0) -> Update:
        """Return the update that begins after `position` samples: the same whatever came before or runs beside."""
        return self._make(self.plan(position, number))

    def stream(self, position: int, number: int = 0) -> Iterator[Update]:
        """Yield the updates from `position` on, without end; `number` updates of the phase are done.

        What cannot be made is raised in its turn, after the updates before it, however many are made ahead.

        Raises:
            DamagedShardError: naming file and row.
            WorkerError: naming the update, and why it could not be read.
        """
        workers = self.config.num_workers
        while not workers:
            update = self._finished(self._planned(position, number), number)
            yield update
            position, number = update.end_position, number + 1
        ahead: collections.deque[Future[Update]] = collections.deque()
        failed: Exception | None = None
        pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        try:
            while True:
                while failed is None and len(ahead) < workers:
                    try:
                        if self._window_at(position) != self._window:
                            wait(ahead)  # planning lets go of the shards that these are made from
                        plan = self._planned(position, number)
                    except Exception as error:
                        failed = error
                    else:
                        ahead.append(pool.submit(self._finished, plan, number))
                        position, number = plan.end, number + 1
                if failed is not None and not ahead:
                    raise failed
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def exclude(self, shards: Iterable[str]) -> None:
        """Leave damaged shards out from the next plan on; see `Corpora.exclude`."""
        self._planner.exclude(shards)

    def _planned(self, position: int, number: int) -> UpdatePlan:
        with _told(f"update {number + 1} of the phase, from sample {position:,}"):
            return self.plan(position, number)

    def _finished(self, plan: UpdatePlan, number: int) -> Update:
        with _told(f"update {number + 1} of the phase, samples {plan.start:,} to {plan.end - 1:,}"):
            return self._make(plan)

    def _window_at(self, position: int) -> Hashable:
        return (self._planner.window_at(position),)

    def _make(self, plan: UpdatePlan) -> Update:
        seed = self.config.seed
        if plan.places is None:
            micro_batches = self.batches.make_all(seed, plan.micro_batches, plan.longest)
        else:
            assert self.row_shape is not None
            micro_batches = self.batches.make_rows(seed, plan.micro_batches, plan.places, self.row_shape, plan.longest)
        return Update(micro_batches, (plan.end - 1) // self.corpora.num_sequences, plan.start, plan.end)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say of a failure, which may be a thread's, what was being made; a defect of our own keeps its traceback."""
    try:
        yield
    except DamagedShardError:
        raise
    except (BertPytorchError, OSError) as error:
        reason = explain_os_error(error) if isinstance(error, OSError) else str(error)
        raise WorkerError(f"{reason} (Met when making {what}.)") from error
    except Exception as error:
        error.add_note(f"while making {what}")
        raise
