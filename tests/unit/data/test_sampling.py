"""The order of samples: a permutation an epoch, computed from the position alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.sampling import GlobalOrder, MixedStream, ShuffledStream, WindowOrder, permute


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
    stream = ShuffledStream(GlobalOrder(n, seed=3))
    whole = stream.samples(np.arange(start, start + count))
    half = count // 2
    parts = [stream.samples(np.arange(*ends)) for ends in ((start, start + half), (start + half, start + count))]
    assert np.array_equal(whole.indices, np.concatenate([part.indices for part in parts]))
    assert np.array_equal(whole.epochs, np.arange(start, start + count) // n)


def test_seeking_into_ten_billion_samples_costs_nothing() -> None:
    stream = ShuffledStream(GlobalOrder(10_000_000_000, seed=1))
    samples = stream.samples(np.array([9_999_999_999, 10_000_000_000]))
    assert samples.epochs.tolist() == [0, 1]
    assert (samples.indices < 10_000_000_000).all()


SHARDS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(SHARDS, st.integers(1, 5), st.integers(0, 3))
def test_windows_visit_every_sample_once_and_few_shards_at_a_time(sizes: list[int], window: int, epoch: int) -> None:
    order = WindowOrder(np.array(sizes), window, seed=5)
    n = sum(sizes)
    found = order.indices(np.arange(n), epoch)
    assert sorted(found.tolist()) == list(range(n))
    assert [int(order.indices(np.array([place]), epoch)[0]) for place in range(n)] == found.tolist()
    owners = np.repeat(np.arange(len(sizes)), sizes)[found]
    seen: list[set[int]] = []
    for place in range(n):
        shards = order.shards_from(place, epoch)[:window]
        assert owners[place] in shards
        if not seen or set(shards.tolist()) != seen[-1]:
            seen.append(set(shards.tolist()))
    if len(sizes) > window:
        assert sum(len(shards) for shards in seen) >= len(sizes)  # the windows of an epoch have all shards


def test_samples_of_a_window_are_mixed_and_windows_differ_between_epochs() -> None:
    order = WindowOrder(np.full(40, 250), 4, seed=1)
    first, second = (order.indices(np.arange(1000), epoch) for epoch in (0, 1))
    assert len(set((first // 250).tolist())) == 4
    assert abs(np.corrcoef(np.arange(1000), first // 250)[0, 1]) < 0.16  # 5 sigma
    assert set((first // 250).tolist()) != set((second // 250).tolist())


@settings(max_examples=20)  # each draws 32,768 samples
@given(st.lists(st.integers(1, 300), min_size=2, max_size=4), st.data())
def test_a_mixture_keeps_its_weights_and_passes_over_each_corpus_in_turn(sizes: list[int], data: st.DataObject) -> None:
    weights = tuple(data.draw(st.floats(0.05, 3.0)) for _ in sizes)
    starts = (np.cumsum(sizes) - sizes).tolist()
    streams = [ShuffledStream(GlobalOrder(n, 3), first) for n, first in zip(sizes, starts, strict=True)]
    mixed = MixedStream(streams, weights, seed=3)
    block = 1 << 14
    samples = mixed.samples(np.arange(2 * block))
    corpora = np.searchsorted(np.cumsum(sizes), samples.indices, side="right")
    share = np.bincount(corpora, minlength=len(sizes)) / (2 * block)
    assert np.abs(share - np.array(weights) / sum(weights)).max() <= len(sizes) / block
    for corpus, size in enumerate(sizes):
        mine = corpora == corpus
        counts = np.bincount(samples.indices[mine] - starts[corpus], minlength=size)
        assert counts.max() - counts.min() <= 1 or np.bincount(samples.epochs[mine]).max() <= size
        by_epoch = np.lexsort((samples.indices[mine], samples.epochs[mine]))
        passes = samples.indices[mine][by_epoch]
        whole = passes[: len(passes) // size * size].reshape(-1, size)  # epochs follow each other; the last is cut
        assert (whole == np.arange(starts[corpus], starts[corpus] + size)).all()
    middle = np.arange(block - 50, block + 50)
    again = mixed.samples(middle)
    assert again.indices.tolist() == samples.indices[middle].tolist()
