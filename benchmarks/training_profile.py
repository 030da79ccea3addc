"""Where a step of run_pretraining.py spends its time: the shipped program under torch's profiler.

    python benchmarks/training_profile.py CHECKOUT OUTPUT.json SKIP UPDATES [options of run_pretraining.py …]

Started by `python -m benchmarks.training_step --profile`.  It imports nothing of this project, so that CHECKOUT's
package is the one that runs.  SKIP updates are left out, UPDATES are recorded, then the program ends.
"""

import collections
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

# What a piece of work belongs to: first by the outermost operator around it that has one of these in its name …
AROUND = {
    "optimizer": ("Optimizer.step", "fused_adamw", "foreach_norm", "linalg_vector_norm", "foreach_mul"),
    "embedding gradient": ("embedding_dense_backward", "EmbeddingBackward"),
    "attention": ("scaled_dot_product", "ScaledDotProduct", "flex_attention", "varlen"),
    "loss": ("cross_entropy", "log_softmax", "LogSoftmax", "nll_loss", "NllLoss", "CrossEntropy", "logsumexp"),
    "dropout": ("dropout", "Dropout", "bernoulli", "random_"),
    "compiled": ("CompiledFxGraph", "CompiledFunction", "Torch-Compiled", "cpp_fused", "triton_"),
}
# … then by its own name.
ITSELF = {
    "GEMM": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "aten::matmul", "mkldnn", "aten::addmm_"),
    "copies and fills": (
        "copy_", "cat", "index", "zero_", "fill_", "clone", "contiguous", "gather", "scatter", "slice", "embedding",
        "split", "narrow", "select", "empty", "_to_copy",
    ),
    "LayerNorm, GELU, elementwise": (
        "layer_norm", "gelu", "tanh", "aten::mul", "aten::add", "aten::div", "aten::sub", "aten::sum", "silu", "relu",
        "aten::sigmoid", "aten::where", "aten::exp", "aten::pow", "aten::sqrt", "aten::mean",
    ),
}  # fmt: skip
OTHER = "other operators"


def main() -> None:
    """Run and record."""
    checkout, output, skip, updates = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    recorder = Recorder(skip, updates)

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if len(optimizer.param_groups) > 1:  # with and without weight decay; a start measures LAMB on one group
            recorder.update_done()

    register_optimizer_step_post_hook(stepped)
    sys.argv = ["run_pretraining.py", *sys.argv[5:]]
    sys.path[0] = str(checkout)
    try:
        runpy.run_path(str(checkout / "run_pretraining.py"), run_name="__main__")
    except SystemExit:
        if recorder.seconds is None:
            raise
    output.write_text(json.dumps(recorder.summary()))


class Recorder:
    """Starts and stops the profiler by the updates that the optimizer has done."""

    def __init__(self, skip: int, updates: int) -> None:
        self._skip = skip
        self._updates = updates
        self._done = 0
        kinds = torch.profiler.ProfilerActivity
        self._profiler = torch.profiler.profile(
            activities=[kinds.CPU, *([kinds.CUDA] if torch.cuda.is_available() else [])],
            record_shapes=True,
            with_flops=True,
        )
        self.seconds: float | None = None
        """Wall clock of the recorded updates."""

    def update_done(self) -> None:
        """Count; ends the program after the last one."""
        self._done += 1
        if self._done == self._skip:
            self._profiler.start()
            self._started = time.perf_counter()
        if self._done == self._skip + self._updates:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self._started
            self._profiler.stop()
            raise SystemExit(0)

    def summary(self) -> dict[str, Any]:
        """Return milliseconds an update by group and operator on the host, by kernel on a GPU; the products' rate."""
        assert self.seconds is not None
        groups: dict[str, float] = collections.defaultdict(float)
        operators: dict[tuple[str, str], float] = collections.defaultdict(float)
        kernels: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        gemm_flops = 0
        for event in self._profiler.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                kernels[event.name][0] += event.time_range.elapsed_us() / 1000 / self._updates
                kernels[event.name][1] += 1 / self._updates
                continue
            own = event.self_cpu_time_total / 1000 / self._updates
            group = group_of(event)
            groups[group] += own
            operators[event.name, group] += own
            if group == "GEMM":
                gemm_flops += event.flops or 0
        wall = 1000 * self.seconds / self._updates
        groups["Python and waiting"] = wall - sum(groups.values())
        ranked = sorted(operators.items(), key=lambda item: -item[1])
        return {
            "milliseconds": wall,
            "groups": dict(sorted(groups.items(), key=lambda item: -item[1])),
            "operators": [[name, group, own] for (name, group), own in ranked],
            "kernels": [
                [name, milliseconds, calls]
                for name, (milliseconds, calls) in sorted(kernels.items(), key=lambda item: -item[1][0])
            ],
            "gemm_gflops": gemm_flops / self._updates / 1e6 / groups["GEMM"] if groups["GEMM"] else None,
        }


def group_of(event: Any) -> str:
    """Return the group of an event of the profiler."""
    around, found = event, None
    while around is not None:
        found = _match(around.name, AROUND) or found
        around = around.cpu_parent
    return found or _match(event.name, ITSELF) or OTHER


def _match(name: str, table: dict[str, tuple[str, ...]]) -> str | None:
    return next((group for group, parts in table.items() if any(part in name for part in parts)), None)


if __name__ == "__main__":
    main()
