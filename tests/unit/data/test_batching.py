"""Sizes of updates and of the micro-batches of each rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.data.batching import (
    longest_at,
    sequences_in_budget,
    sizes_of_ranks,
    total_amount,
    update_size,
)
from bert_pytorch.data.config import BatchConfig
from bert_pytorch.errors import ConfigError

LENGTHS = st.lists(st.integers(5, 128), min_size=1, max_size=400)


def test_a_batch_grows_linearly_and_stays() -> None:
    config = BatchConfig(global_batch_size=100, batch_ramp_updates=4, batch_ramp_start=20)
    sizes = [update_size(config, number).amount for number in range(7)]
    assert sizes == [20, 40, 60, 80, 100, 100, 100]
    assert total_amount(config, 7) == sum(sizes)
    assert total_amount(config, 3) == 120


def test_the_curriculum_grows_in_eights_to_the_full_length() -> None:
    config = BatchConfig(length_curriculum_updates=10, length_curriculum_start=16)
    found = [longest_at(config, number, 128) for number in range(12)]
    assert found[0] == 16
    assert found[-2:] == [128, 128]
    assert found == sorted(found)
    assert all(length % 8 == 0 for length in found)
    assert longest_at(BatchConfig(), 0, 128) == 128


@given(LENGTHS, st.integers(1, 3000))
def test_a_budget_takes_as_many_whole_sequences_as_fit(lengths: list[int], budget: int) -> None:
    count = sequences_in_budget(np.array(lengths), budget)
    assert count == 1 or sum(lengths[:count]) <= budget
    assert count == len(lengths) or sum(lengths[: count + 1]) > budget


def test_every_rank_has_its_size_as_told_or_the_one_of_all() -> None:
    assert sizes_of_ranks(BatchConfig(local_batch_size=5), 3) == (5, 5, 5)
    assert sizes_of_ranks(BatchConfig(local_batch_sizes="16x2,8"), 3) == (16, 16, 8)
    assert sizes_of_ranks(BatchConfig(local_batch_sizes="measure", local_batch_size=5), 2) == (5, 5)


def test_sizes_for_another_number_of_ranks_are_refused_with_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"found 3 sizes \(16x2,8\) for 2 ranks, wanted one for each.*Give as many"):
        sizes_of_ranks(BatchConfig(local_batch_sizes="16x2,8"), 2)


@pytest.mark.parametrize("text", ["", "16,", "16,,8", "-1,8", "16x0", "8x", "x8", "8 8", "1e3", "0,0", "9" * 7, "fast"])
def test_what_is_no_list_of_sizes_is_refused_in_one_message(text: str) -> None:
    (problem,) = BatchConfig(local_batch_sizes=text).combination_problems()
    assert problem.startswith(f"--local_batch_sizes: found {text!r}")
    assert "16x2,8" in problem
