"""Which implementation of each fused step this process uses, decided once at the start and told.

Models and optimizers ask here; until something else is decided they compute with torch.  The kernels, and with them
Triton, are imported by this module alone, and only where one is to run.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor

from bert_pytorch.kernels.choice import Candidate, Choice, choose

KernelName = Literal["residual_norm", "bias_gelu", "geglu", "lamb"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)
TORCH, TRITON = "torch", "triton"

_FUNCTIONS: dict[KernelName, tuple[str, str]] = {
    "residual_norm": ("triton_residual_norm", "residual_dropout_norm"),
    "bias_gelu": ("triton_gelu", "bias_gelu"),
    "geglu": ("triton_gelu", "geglu"),
    "lamb": ("triton_lamb", "TritonLamb"),
}
_used: dict[str, str] = {}
"""Type of the devices on which a kernel is used: a state of the process, as with torch's own backends."""


def use(choices: Mapping[KernelName, str], device_type: str = "cuda") -> None:
    """Use these implementations on such devices from now on, and torch for what is not named."""
    _used.clear()
    _used.update({name: device_type for name, way in choices.items() if way == TRITON})


def in_use(name: KernelName, tensor: Tensor) -> bool:
    """Whether this process computes a step on the device of `tensor` by its Triton kernel."""
    return _used.get(name) == tensor.device.type


def triton_function(name: KernelName) -> Any:
    """Return a kernel's function (LAMB: its class).

    Raises:
        ImportError: where Triton is missing.
    """
    module, function = _FUNCTIONS[name]
    return getattr(importlib.import_module(f"bert_pytorch.kernels.{module}"), function)


def triton_problem(device_type: str, capability: tuple[int, int] | None) -> str | None:
    """Return why Triton's kernels cannot run, None where they can.

    Args:
        device_type: of the model's device.
        capability: the GPU's compute capability; None without one.
    """
    if device_type != "cuda":
        return "no CUDA"
    if capability is not None and capability < (8, 0):
        return f"compute capability {capability[0]}.{capability[1]}, wanted 8.0 or more"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1 runs Triton in Python; unset it"
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton cannot be imported ({error}); it comes with torch for CUDA"
    return None


def choose_kernels(
    problem: str | None,
    *,
    compiled: bool = False,
    saved: Mapping[str, str] | None = None,
    measure: Callable[[KernelName, str], float] | None = None,
    measured: Sequence[KernelName] = KERNELS,
) -> dict[KernelName, Choice]:
    """Choose an implementation of each kernel; nothing is used before `use`.

    Args:
        problem: of `triton_problem`.
        compiled: whether the layers are compiled: inductor then fuses more than kernels that it cannot look into.
        saved: what the run used so far.
        measure: seconds of one implementation of one kernel; None: Triton wherever it can run.
        measured: kernels that are measured, as the run uses them.
    """
    saved = saved or {}
    choices: dict[KernelName, Choice] = {}
    for name in KERNELS:
        here = problem or ("inductor fuses it" if compiled and name != "lamb" else None)
        choices[name] = choose(
            [Candidate(TRITON, here), Candidate(TORCH)],
            saved=saved.get(name),
            measure=None if measure is None or name not in measured else partial(measure, name),
        )
    return choices


def describe(choices: Mapping[KernelName, Choice]) -> str:
    """Return one line for the log, kernels with the same answer together."""
    answers: dict[str, list[str]] = {}
    for name, (chosen, reason) in choices.items():
        answers.setdefault(f"{chosen} ({reason.removeprefix('triton: ')})", []).append(name)
    return "; ".join(f"{', '.join(names)} {answer}" for answer, names in answers.items())
