"""Tensors that ranks pass to each other: what each has computed to all, or to the one that writes files."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from bert_pytorch.runtime.distributed import World

JOINED_BELOW = 2**20
"""Bytes of a tensor: smaller ones travel as one message, larger ones as they lie, which costs no memory."""


@torch.no_grad()
def spread(world: World, tensors: Sequence[torch.Tensor], owners: Sequence[int]) -> None:
    """Copy each tensor from its owner into the same one of every rank, in place and on the device.

    All messages are on their way at once.  All ranks call this together.

    Args:
        world: all ranks, connected.
        tensors: of the same shapes and dtypes on every rank.
        owners: the rank of each that has what the others lack; the same on every rank.
    """
    if world.size == 1:
        return
    joined: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}
    sent = []
    for tensor, owner in zip(tensors, owners, strict=True):
        tensor = tensor.detach()
        if tensor.nbytes < JOINED_BELOW or not tensor.is_contiguous():
            joined.setdefault((owner, tensor.dtype), []).append(tensor)
        else:
            sent.append(dist.broadcast(tensor, src=owner, async_op=True))
    messages = {key: torch.cat([tensor.reshape(-1) for tensor in parts]) for key, parts in joined.items()}
    sent += [dist.broadcast(message, src=owner, async_op=True) for (owner, _), message in messages.items()]
    for work in sent:
        assert work is not None
        work.wait()  # on a GPU nothing waits but what is queued afterwards
    for (owner, dtype), parts in joined.items():
        if owner != world.rank:
            pieces = messages[owner, dtype].split([part.numel() for part in parts])
            torch._foreach_copy_(parts, [piece.view_as(part) for part, piece in zip(parts, pieces, strict=True)])


def gather_tensors(world: World, tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return every rank's tensors on rank 0, in the order of ranks; on others an empty list.

    They travel one by one, so that rank 0 needs no more memory than what it returns, and none on its device: those of
    other ranks lie on the CPU.  All ranks call this together; if one ends meanwhile, so does the call.

    Raises:
        RuntimeError: if a rank is lost, see `lost_ranks_explained`.
    """
    forms = world.gather([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
    if not world.is_first:
        for tensor in tensors:
            dist.send(tensor.detach().cpu().contiguous(), dst=0, group=world.host_group)
        return []
    gathered = [list(tensors)]
    for rank, expected in enumerate(forms[1:], start=1):
        received = [torch.empty(shape, dtype=dtype) for shape, dtype in expected]
        for tensor in received:
            dist.recv(tensor, src=rank, group=world.host_group)
        gathered.append(received)
    return gathered
