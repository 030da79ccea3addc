"""What is told of GPUs, through a driver that stands in for CUDA's."""

from types import SimpleNamespace

import pytest
import torch

from bert_pytorch.runtime import gpus, placement
from bert_pytorch.runtime.gpus import gpus_here, library_versions, pci_address

H100 = {"name": "NVIDIA H100 80GB HBM3", "total_memory": 80 << 30, "major": 9, "minor": 0}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    buses = (0x3B, 0xDA)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(**H100, pci_domain_id=0, pci_bus_id=buses[index], pci_device_id=0),
    )
    for module in (gpus, placement):
        monkeypatch.setattr(module, "gpu_node", {"0000:3b:00.0": 0, "0000:da:00.0": 1}.get)


def test_a_gpu_is_told_with_its_place(two_gpus: None) -> None:
    assert [tuple(gpu) for gpu in gpus_here()] == [
        ("NVIDIA H100 80GB HBM3", 80.0, "9.0", 989.5, "0000:3b:00.0", 0),
        ("NVIDIA H100 80GB HBM3", 80.0, "9.0", 989.5, "0000:da:00.0", 1),
    ]


def test_each_local_rank_is_beside_the_gpu_of_its_number(two_gpus: None) -> None:
    assert placement._gpu_nodes(2) == (0, 1)


def test_a_torch_that_tells_no_address_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(**H100))
    assert pci_address(0) is None
    assert placement._gpu_nodes(1) == (None,)


def test_versions_are_torchs_own() -> None:
    found = library_versions()
    assert found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
