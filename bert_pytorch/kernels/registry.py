"""Which implementation of each fused step this process uses, decided once at the start and told.

Models and optimizers ask here for a function; until something else is decided they get the reference.  Triton is
imported by this module alone, and only where a kernel is to run.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch

from bert_pytorch.kernels.choice import Candidate, Choice, choose
from bert_pytorch.kernels.gelu import bias_gelu_reference, geglu_reference
from bert_pytorch.kernels.residual_norm import residual_dropout_norm_reference

KernelName = Literal["residual_norm", "bias_gelu", "geglu", "lamb"]


class Kernel(NamedTuple):
    """One fused step."""

    triton: tuple[str, str]
    """Module and function of the Triton kernel."""
    reference: Callable[..., Any] | None
    """The same in plain torch; None where its owner has it (LAMB: `optim.lamb`)."""


KERNELS: dict[KernelName, Kernel] = {
    "residual_norm": Kernel(("triton_residual_norm", "residual_dropout_norm"), residual_dropout_norm_reference),
    "bias_gelu": Kernel(("triton_gelu", "bias_gelu"), bias_gelu_reference),
    "geglu": Kernel(("triton_gelu", "geglu"), geglu_reference),
    "lamb": Kernel(("triton_lamb", "TritonLamb"), None),
}

TORCH, TRITON = "torch", "triton"

_used: dict[str, str] = {}


def implementation(name: KernelName) -> str:
    """Return `torch` or `triton`, what is used in this process."""
    return _used.get(name, TORCH)


def use(choices: Mapping[str, str]) -> None:
    """Use these implementations from now on, `torch` for what is not named."""
    _used.clear()
    _used.update(choices)


def triton_function(name: KernelName) -> Any:
    """Return a kernel's Triton function.

    Raises:
        ImportError: where Triton is missing.
    """
    module, function = KERNELS[name].triton
    return getattr(importlib.import_module(f"bert_pytorch.kernels.{module}"), function)


def function_of(name: KernelName, device: torch.device) -> Callable[..., Any]:
    """Return what computes a step on a device: the Triton kernel where it is used, else the reference."""
    if device.type == "cuda" and implementation(name) == TRITON:
        function: Callable[..., Any] = triton_function(name)
        return function
    reference = KERNELS[name].reference
    assert reference is not None, f"{name} has its reference elsewhere"
    return reference


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
) -> dict[KernelName, Choice]:
    """Choose an implementation of each kernel; nothing is used before `use`.

    Args:
        problem: of `triton_problem`.
        compiled: whether the layers are compiled: inductor then fuses more than kernels that it cannot look into.
        saved: what the run used so far.
        measure: seconds of one implementation of one kernel; None: Triton wherever it can run.
    """
    saved = saved or {}
    choices: dict[KernelName, Choice] = {}
    for name in KERNELS:
        here = problem or ("inductor fuses it" if compiled and name != "lamb" else None)
        choices[name] = choose(
            [Candidate(TRITON, here), Candidate(TORCH)],
            saved=saved.get(name),
            measure=None if measure is None else lambda candidate, name=name: measure(name, candidate),
        )
    return choices


def describe(choices: Mapping[KernelName, Choice]) -> str:
    """Return one line for the log, kernels with the same answer together."""
    answers: dict[str, list[str]] = {}
    for name, (chosen, reason) in choices.items():
        answers.setdefault(f"{chosen} ({reason.removeprefix('triton: ')})", []).append(name)
    return "; ".join(f"{', '.join(names)} {answer}" for answer, names in answers.items())
