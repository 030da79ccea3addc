"""Peaks of devices by name, and the measured rate."""

import pytest
import torch

from bert_pytorch.runtime import peak
from bert_pytorch.runtime.peak import PEAK_FLOPS, known_peak_flops, measured_flops, peak_of_name


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-32GB", 112),
        ("Tesla T4", 65),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 366.5),
        ("NVIDIA A10", 125),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_a_device_has_the_peak_of_its_data_sheet(name: str, teraflops: float) -> None:
    assert peak_of_name(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "NVIDIA A100 MIG 1g.5gb", "cpu"],
)
def test_a_device_that_only_resembles_a_known_one_has_no_peak(name: str) -> None:
    assert peak_of_name(name) is None


def test_every_entry_is_found_by_its_own_name() -> None:
    assert {name: peak_of_name(f"NVIDIA {name}") for name in PEAK_FLOPS} == PEAK_FLOPS


def test_a_cpu_has_no_known_peak() -> None:
    assert known_peak_flops(torch.device("cpu")) is None


def test_the_measured_rate_is_all_flops_over_all_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_best_seconds", lambda left, right: {2: 0.5, 4: 2.0}[len(left)])
    found = measured_flops([(2, 3, 5, 4), (4, 1, 6, 1)], torch.device("cpu"), torch.float32)
    assert found == (4 * 2 * 2 * 3 * 5 + 2 * 4 * 1 * 6) / (4 * 0.5 + 2.0)


def test_a_larger_product_is_measured_to_take_longer() -> None:
    large, small = torch.ones(512, 512), torch.ones(16, 16)
    assert peak._best_seconds(large, large) > peak._best_seconds(small, small)
