"""`habana_frameworks.torch.distributed.hccl`: importing it makes the backend `hccl` known.

docs.habana.ai/en/latest/PyTorch/PyTorch_Scaling_Guide/Distributed_Backend_Initialization.html
"""

import os

import torch.distributed as dist

from tests.support.habana.calls import only_documented, record

__getattr__ = only_documented(__name__)


def initialize_distributed_hpu(
    world_size: int | None = None, rank: int | None = None, local_rank: int | None = None
) -> tuple[int, int, int]:
    """Set the environment of a process that a launcher of one's own started ("Custom Launchers", the same page)."""
    if world_size is None or rank is None or local_rank is None:
        raise NotImplementedError("torchrun's variables are read elsewhere here; give all three")
    record(f"initialize_distributed_hpu({world_size}, {rank}, {local_rank})")
    os.environ |= {"WORLD_SIZE": str(world_size), "RANK": str(rank), "LOCAL_RANK": str(local_rank)}
    return world_size, rank, local_rank


def _gloo(store, rank, size, timeout):  # type: ignore[no-untyped-def]
    record("hccl")
    return dist.ProcessGroupGloo(store, rank, size, timeout)


if "HCCL" not in dist.Backend._plugins:
    dist.Backend.register_backend("hccl", _gloo, devices=["cpu", "hpu"])  # tensors here lie on the host
