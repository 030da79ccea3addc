"""Parts of a projection and their gradients as one matrix."""

import torch

from bert_pytorch.kernels.joined import split, together


def test_parts_and_their_gradients_are_those_of_chunk() -> None:
    given = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 4, dtype=torch.float64)
    for used in ((0, 1, 2), (0, 2), (1,)):
        (found,), (wanted,) = (
            torch.autograd.grad(sum((parts[number] * weights[number]).sum() for number in used), given)
            for parts in (split(given, 3), given.chunk(3, dim=1))
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not any(part.requires_grad for part in split(given.detach(), 3))


def test_parts_that_lie_side_by_side_are_not_copied() -> None:
    buffer = torch.randn(7, 3, 2, 4)
    found = together([part.flatten(1) for part in buffer.unbind(1)])
    assert found.data_ptr() == buffer.data_ptr()
    torch.testing.assert_close(found, buffer.flatten(1), rtol=0, atol=0)


def test_parts_in_another_order_or_another_place_are_copied() -> None:
    buffer = torch.randn(7, 3, 4)
    first, second, third = buffer.unbind(1)
    for parts in ([second, first, third], [first, third], [first, second.clone(), third], [first, second]):
        torch.testing.assert_close(together(parts), torch.cat(parts, dim=1), rtol=0, atol=0)
