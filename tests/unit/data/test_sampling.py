"""The order of samples: a permutation an epoch, computed from the position alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.data.sampling import micro_batch_slices, permute, samples_at


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 50))
def test_every_epoch_visits_every_sample_once(num_samples: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(num_samples), num_samples, seed, epoch)
    assert sorted(order.tolist()) == list(range(num_samples))


def test_the_order_is_shuffled_and_differs_between_epochs_and_seeds() -> None:
    n = 10_000
    first, second = permute(np.arange(n), n, 7, 0), permute(np.arange(n), n, 7, 1)
    other_seed = permute(np.arange(n), n, 8, 0)
    for order in (first, second, other_seed):
        # Correlation of a random order with the identity has standard deviation 1/sqrt(n) = 0.01.
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.05
        # Two neighbours in a random order are neighbours in the set with chance 2/n.
        assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 15
    assert np.count_nonzero(first == second) < 15
    assert np.count_nonzero(first == other_seed) < 15


@given(st.integers(1, 500), st.integers(0, 5000), st.integers(1, 700))
def test_a_stretch_of_the_stream_does_not_depend_on_where_reading_began(n: int, start: int, count: int) -> None:
    whole = samples_at(np.arange(start, start + count), n, seed=3)
    half = count // 2
    parts = [samples_at(np.arange(start, start + half), n, 3), samples_at(np.arange(start + half, start + count), n, 3)]
    assert np.array_equal(whole.indices, np.concatenate([part.indices for part in parts]))
    assert np.array_equal(whole.epochs, np.arange(start, start + count) // n)


def test_seeking_into_ten_billion_samples_costs_nothing() -> None:
    samples = samples_at(np.array([9_999_999_999, 10_000_000_000]), 10_000_000_000, seed=1)
    assert samples.epochs.tolist() == [0, 1]
    assert (samples.indices < 10_000_000_000).all()


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 9))
def test_shares_of_an_update_cover_it_once_and_micro_batches_agree_in_number(
    global_batch_size: int, local_batch_size: int, world_size: int
) -> None:
    taken: list[int] = []
    numbers = set()
    for rank in range(world_size):
        slices = micro_batch_slices(global_batch_size, local_batch_size, rank, world_size)
        share = list(range(rank, global_batch_size, world_size))
        parts = [share[part] for part in slices]
        numbers.add(len(parts))
        assert all(len(part) <= local_batch_size for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        taken += [sample for part in parts for sample in part]
    assert sorted(taken) == list(range(global_batch_size))
    assert len(numbers) == 1


@pytest.mark.parametrize(
    ("global_batch", "local", "world", "count"), [(65536, 96, 8, 86), (65536, 64, 8, 128), (5, 2, 1, 3)]
)
def test_the_forks_batch_of_65536_on_8_gpus_of_96_is_met_exactly(
    global_batch: int, local: int, world: int, count: int
) -> None:
    all_slices = [micro_batch_slices(global_batch, local, rank, world) for rank in range(world)]
    assert {len(slices) for slices in all_slices} == {count}
    assert sum(part.stop - part.start for slices in all_slices for part in slices) == global_batch
