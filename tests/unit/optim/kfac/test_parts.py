"""The parts of K-FAC that need no model: triangles, values by update, shares of the work."""

import itertools

import pytest
import torch

from bert_pytorch.optim.kfac.assignment import assign_by_cost
from bert_pytorch.optim.kfac.factors import add_products, from_triangle, triangle
from bert_pytorch.optim.kfac.stepwise import parse_stepwise


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_a_triangle_holds_a_symmetric_matrix_in_half_its_place(size: int) -> None:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(size))
    matrix = matrix + matrix.T
    folded = triangle(matrix)
    assert folded.shape == ((size + 1) // 2, size + 1)
    assert torch.equal(from_triangle(folded), matrix)


@pytest.mark.parametrize("width", [1, 3, 4, 512])
def test_products_by_blocks_are_whole_ones_where_a_triangle_looks(width: int) -> None:
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = torch.eye(7, dtype=torch.float64)
    add_products(sums, rows, width)
    whole = torch.eye(7, dtype=torch.float64) + sum(torch.outer(row, row) for row in rows)
    assert torch.allclose(from_triangle(triangle(sums)), whole, rtol=1e-12, atol=0)


def test_values_change_at_the_updates_that_are_named() -> None:
    damping = parse_stepwise("0.03,5:0.01,9:1e-3")
    assert [damping.at(step) for step in (1, 4, 5, 8, 9, 1000)] == [0.03, 0.03, 0.01, 0.01, 1e-3, 1e-3]
    assert parse_stepwise(10).at(7) == 10


def test_an_interval_is_due_at_its_first_update_and_then_by_its_own_count() -> None:
    interval = parse_stepwise("2,6:4")
    assert [step for step in range(1, 16) if interval.is_due(step)] == [1, 3, 5, 6, 10, 14]


@pytest.mark.parametrize("text", ["", "ten", "1,2", "1,5:2,5:3", "1,1:2", "1,a:2"])
def test_what_is_no_value_by_update_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|invalid literal|is not STEP:VALUE"):
        parse_stepwise(text)


def test_work_is_shared_within_four_thirds_of_the_best_share() -> None:
    costs = {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0, "e": 5.0, "f": 5.0, "g": 4.0}
    owners = assign_by_cost(costs, 3)

    def busiest(shares: tuple[int, ...]) -> float:
        return max(
            sum(cost for cost, own in zip(costs.values(), shares, strict=True) if own == rank) for rank in range(3)
        )

    best = min(busiest(shares) for shares in itertools.product(range(3), repeat=7))
    assert busiest(tuple(owners[name] for name in costs)) <= 4 / 3 * best
    assert assign_by_cost(dict(reversed(costs.items())), 3) == owners
