"""Freed memory is kept for the next update."""

import subprocess
import sys

import pytest

from bert_pytorch.runtime.allocator import keep_freed_memory

PROBE = """
import resource, sys
import torch
from bert_pytorch.runtime.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12 << 20)  # 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_blocks_made_again_and_again_are_not_zeroed_by_the_kernel_each_time() -> None:
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", PROBE, mode], check=True, capture_output=True, text=True).stdout
        )
        for mode in ("given_back", "kept")
    }
    assert faults["kept"] * 20 < faults["given_back"]


def test_asking_twice_is_fine() -> None:
    assert keep_freed_memory() == keep_freed_memory()
