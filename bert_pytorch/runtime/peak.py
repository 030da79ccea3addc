"""How fast a device can multiply matrices: by its data sheet, or measured."""

import re
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bert_pytorch.runtime import hpu
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.timing import synchronize

TERA = 1e12

PEAK_FLOPS = {
    # By NVIDIA's data sheets; where those give the rate with sparsity, half of it.
    "B200": 2250 * TERA,
    "GH200": 989.5 * TERA,
    "H200 NVL": 835.5 * TERA,
    "H200": 989.5 * TERA,
    "H100 NVL": 835.5 * TERA,
    "H100 PCIe": 756.5 * TERA,
    "H100": 989.5 * TERA,
    "A100": 312 * TERA,
    "A40": 149.7 * TERA,
    "A30": 165 * TERA,
    "A10": 125 * TERA,
    "L40S": 366.5 * TERA,
    "L40": 181 * TERA,
    "L4": 121 * TERA,
    "V100S": 130 * TERA,
    "V100 PCIE": 112 * TERA,
    "V100": 125 * TERA,
    "T4": 65 * TERA,
    "RTX A6000": 154.8 * TERA,
    # By Intel's white papers on Gaudi 2 and Gaudi 3: matrix engines in bf16, dense.
    "GAUDI2": 432 * TERA,
    "GAUDI3": 1835 * TERA,
    # By NVIDIA's white papers on Ada (appendix A) and on GA102: fp16 with sums in fp32, dense.
    "RTX 4090": 165.2 * TERA,
    "RTX 3090": 71 * TERA,
}
"""FLOP/s of dense bf16 or fp16 products with sums in fp32, by words of the device's name; more words stand first."""

_LESSER = {"laptop", "d", "mig"}
"""Words of names whose other words are those of a larger device; a MIG instance is a part of one."""
_ROUNDS = 3
_ROUND_SECONDS = 0.1


def known_peak_flops(device: torch.device) -> float | None:
    """Return a GPU's or Gaudi's peak, None for devices that are not in the table.

    It is the tensor cores' bf16 or fp16 peak whatever precision a run has: a run in fp32 wastes the difference.
    """
    if device.type == "hpu":
        return peak_of_name(hpu.device_name())
    return peak_of_name(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of_all(world: World, peak: float | None) -> float | None:
    """Add the peaks of all ranks, whose devices may differ; None if one is unknown.  All ranks call this together."""
    total, unknown = world.sum([peak or 0.0, float(peak is None)])
    return None if unknown else total


def peak_of_name(name: str) -> float | None:
    """Return the peak of a device as `torch.cuda.get_device_name`, or Habana's, calls it."""
    words = _words(name)
    if words & _LESSER:
        return None
    return next((peak for known, peak in PEAK_FLOPS.items() if _words(known) <= words), None)


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.lower()))


@torch.no_grad()
def measured_flops(shapes: Sequence[tuple[int, int, int, int]], device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of `linear`, each shape at its best, which takes about half a second a shape.

    Args:
        shapes: (rows, inner, columns, times): products of (rows, inner) by (inner, columns), weighted by how often a
            model has them.
        device: where.
        dtype: of the matrices; they are random, since a GPU multiplies zeros faster.
    """
    flops = seconds = 0.0
    for rows, inner, columns, times in shapes:
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(columns, inner, device=device, dtype=dtype)
        flops += times * 2.0 * rows * inner * columns
        seconds += times * _best_seconds(left, right)
    return flops / seconds


def _best_seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """Time one product: the least mean of several rounds."""
    started = time.perf_counter()
    F.linear(left, right)  # warm-up, and how many fill a round
    synchronize(left.device)
    repeats = max(1, int(_ROUND_SECONDS / (time.perf_counter() - started)))
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(repeats):
            F.linear(left, right)
        synchronize(left.device)
        best = min(best, (time.perf_counter() - started) / repeats)
    return best
