"""Seconds that a computation takes on its device."""

import time
from collections.abc import Callable
from statistics import median

import torch

from bert_pytorch.runtime import hpu

_CYCLES_PER_SECOND = 2e9
"""Of a GPU at its fastest; a slower one pauses longer."""
_LONGEST_PAUSE = 1.0
"""Seconds; who launches longer is measured with its launching."""


def synchronize(device: torch.device) -> None:
    """Wait until a device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "hpu":
        hpu.synchronize()


def seconds_per_call(
    function: Callable[[], object], device: torch.device, *, warm_up: int = 3, calls: int = 7
) -> float:
    """Return the median time of a call after some for compilation and caches.

    On a GPU it is the device's own time: all calls wait in its queue behind a pause that lasts until the host has
    launched them.  Without it a kernel of 0.1 ms looks as slow as launching it, which in training happens ahead.
    """
    for _ in range(warm_up):
        function()
    if device.type != "cuda":
        return median(_seconds(function) for _ in range(calls))
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    synchronize(device)
    launching = _seconds(function) * calls
    torch.cuda._sleep(int(min(1.5 * launching, _LONGEST_PAUSE) * _CYCLES_PER_SECOND))
    for start, end in pairs:
        start.record()
        function()
        end.record()
    synchronize(device)
    return median(start.elapsed_time(end) for start, end in pairs) / 1e3


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
