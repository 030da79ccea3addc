"""What is known about this machine's CUDA GPUs and the libraries that drive them."""

from typing import Any, NamedTuple

import torch

from bert_pytorch.runtime.peak import peak_of_name
from bert_pytorch.runtime.processors import gpu_node


class Gpu(NamedTuple):
    """One GPU that this process sees."""

    name: str
    memory_gib: float
    compute_capability: str
    peak_tflops: float | None
    """Of 16-bit matrix products by the data sheet; None where `runtime.peak` does not know the name."""
    pci_address: str | None
    numa_node: int | None


def gpus_here() -> list[Gpu]:
    """Look at every GPU that this process sees."""
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        peak, address = peak_of_name(properties.name), pci_address(index)
        found.append(
            Gpu(
                name=properties.name,
                memory_gib=round(properties.total_memory / 2**30, 1),
                compute_capability=f"{properties.major}.{properties.minor}",
                peak_tflops=None if peak is None else peak / 1e12,
                pci_address=address,
                numa_node=None if address is None else gpu_node(address),
            )
        )
    return found


def pci_address(index: int) -> str | None:
    """Return a GPU's address on the PCI bus as sysfs spells it; None with a torch that does not tell (below 2.8)."""
    properties: Any = torch.cuda.get_device_properties(index)  # whose type stub knows no address
    if not hasattr(properties, "pci_bus_id"):
        return None
    return f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"


def library_versions() -> dict[str, str | None]:
    """Return the versions of what torch was built with or loads; None: it has none."""
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    nccl = None
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        nccl = ".".join(str(number) for number in torch.cuda.nccl.version())
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "nccl": nccl,
    }
