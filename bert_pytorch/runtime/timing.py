"""Seconds that a computation takes on its device."""

import time
from collections.abc import Callable
from statistics import median

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(
    function: Callable[[], object], device: torch.device, *, warm_up: int = 3, calls: int = 7
) -> float:
    """Return the median time of a call after some for compilation and caches.

    On a GPU each call is timed between two events of its queue: launching counts only where the device waits for it.
    """
    for _ in range(warm_up):
        function()
    if device.type != "cuda":
        return median(_seconds(function) for _ in range(calls))
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
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
