"""Compile every Triton kernel for an H100 on a machine without one, at BERT-large's shapes, and print what each takes.

    python -m tests.support.triton_compiling

The interpreter runs kernels that the compiler refuses (a variable that changes its shape in a loop, for one).  Nothing
is launched here: Triton's compiler and ptxas run with the arguments that our functions give.  One JSON line a kernel.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bert_pytorch.kernels.attention import Bias, Sequences
from bert_pytorch.kernels.triton_attention import attention
from bert_pytorch.kernels.triton_gelu import bias_gelu, geglu
from bert_pytorch.kernels.triton_lamb import TritonLamb
from bert_pytorch.kernels.triton_residual_norm import residual_dropout_norm

HOPPER = GPUTarget("cuda", 90, 32)


def main() -> None:
    """Compile all and print."""
    seen: set[str] = set()
    for case in cases():
        for name, kernel in compiled_by(case):
            if kernel.hash not in seen:
                seen.add(kernel.hash)
                print(json.dumps({"kernel": name, **resources(kernel)}), flush=True)


def cases() -> list[Callable[[], None]]:
    """Return calls of our functions that launch every kernel in the variants that BERT uses."""
    found: list[Callable[[], None]] = [lambda: update_four(trust=True), lambda: update_four(trust=False)]
    for dtype in (torch.bfloat16, torch.float32):
        x, residual = (torch.randn(64, 1024, dtype=dtype, requires_grad=True) for _ in range(2))
        vectors = [torch.randn(1024, requires_grad=True) for _ in range(3)]
        found += [partial(norm_both_ways, x, residual, *vectors, p, 1e-12) for p in (0.0, 0.1)]
        wide, bias = torch.randn(64, 4096, dtype=dtype, requires_grad=True), torch.randn(4096, requires_grad=True)
        found += [partial(both_ways, bias_gelu, wide, bias), partial(both_ways, geglu, wide, None)]
    for longest in (128, 512):
        qkv = [torch.randn(longest, 16, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        edges = torch.tensor([0, longest], dtype=torch.int32)
        everyone = Sequences(edges, edges, longest, longest)
        some = everyone._replace(query_positions=torch.arange(longest, dtype=torch.int32))
        for sequences, on_scores in ((everyone, Bias()), (some, Bias(torch.randn(16), 64))):
            found.append(partial(both_ways, attention, *qkv, sequences, on_scores))
    return found


def norm_both_ways(*arguments: Any) -> None:
    """Launch both kernels of the norm."""
    both_ways(lambda: residual_dropout_norm(*arguments)[0])


def update_four(*, trust: bool) -> None:
    """Launch LAMB's kernels: both, or the one that groups without weight decay take."""
    lists = [[torch.zeros(5000)] for _ in range(4)]
    TritonLamb().update(0, lists, lr=0.1, betas=(0.9, 0.999), eps=1e-6, scale=1.0, decay=0.01, trust=trust)


def both_ways(function: Callable[..., torch.Tensor], *arguments: Any) -> None:
    """Launch a function's kernels forward and backward."""
    output = function(*arguments)
    output.backward(torch.ones_like(output))


def compiled_by(case: Callable[[], None]) -> list[tuple[str, Any]]:
    """Return the kernels that a call would launch on a Hopper GPU, compiled for it instead."""
    compiled = []
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        name = f"{self.__module__.rpartition('.')[2]}_{self.__name__.lstrip('_')}"
        compiled.append((name, run(self, *args, grid=grid, warmup=True, **options)))

    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: HOPPER
        )
    )
    JITFunction.run = compile_only
    try:
        case()
    finally:
        JITFunction.run = run
    return compiled


def resources(kernel: Any) -> dict[str, int]:
    """Assemble a kernel's PTX once more for the assembler's report: registers a thread, bytes that did not fit."""
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(kernel.asm["ptx"])
        words = [str(ptxas), "-v", "--gpu-name=sm_90a", str(source), "-o", str(Path(folder, "kernel.cubin"))]
        report = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", report)))
    registers = int(re.findall(r"Used (\d+) registers", report)[-1])
    metadata = kernel.metadata
    return {
        "registers": registers,
        "warps": metadata.num_warps,
        "spilled_bytes": spilled,
        "shared_bytes": metadata.shared,
    }


if __name__ == "__main__":
    main()
