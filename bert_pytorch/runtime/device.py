"""Devices: choosing one, its memory, where its graphs end, and the generator that dropout draws from."""

import resource
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import nn

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime import hpu

DeviceName = Literal["auto", "cpu", "cuda", "hpu"]


class DeviceConfig(Settings):
    """Where the model runs."""

    device: DeviceName = "auto"
    """Device of the model: auto takes a CUDA GPU where there is one, else a Gaudi (hpu), else the CPU."""
    hpu_dynamic_shapes: bool | None = None
    """Gaudi: let its software put shapes that vary into buckets instead of compiling each of them
    (PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES). By default where they do vary: fine-tuning, --packing tokens."""
    measure_peak: bool = False
    """Measure at the start, in a few seconds, how fast matrix products of the model's shapes are, for `mfu` in the
    metrics; without it a GPU's data sheet counts, and a CPU has none."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "use_habana": "--device hpu",
        "use_lazy_mode": "--no-compile for lazy mode, --compile for eager mode with torch.compile",
        "use_torch_compile": "--compile",
        "compiled_autograd": "nothing: --compile compiles backward passes with their forward ones",
        "no_compiled_autograd": "nothing: --compile compiles backward passes with their forward ones",
        "use_hpu_graphs": "nothing: predictions on Gaudi are HPU graphs in lazy mode",
        "log_memory_usage": "nothing: every row of metrics.jsonl has peak_memory_gib",
    }


class ChosenDevice(NamedTuple):
    """A device and why it was chosen."""

    device: torch.device
    reason: str


def choose_device(
    config: DeviceConfig, local_rank: int, *, compiles: bool = False, shapes_vary: bool = False
) -> ChosenDevice:
    """Choose this rank's device.

    Args:
        config: what is asked for.
        local_rank: of this process on its machine.
        compiles: whether parts of the model will be compiled, which decides how a Gaudi computes.
        shapes_vary: whether tensors will have many shapes, likewise.

    Raises:
        ConfigError: if a device is asked for and there is none for this rank.
    """
    gpus, nothing_else = gpu_count(), "no CUDA GPU is visible"
    if config.device == "hpu" or (config.device == "auto" and gpus == 0 and hpu.is_installed()):
        dynamic = shapes_vary if config.hpu_dynamic_shapes is None else config.hpu_dynamic_shapes
        try:
            hpu.load(compiles=compiles, dynamic_shapes=dynamic)
        except ConfigError as error:
            if config.device == "hpu":
                raise
            nothing_else = f"no CUDA GPU is visible, no Gaudi: {error}"
        else:
            if config.device == "hpu" or hpu.count():
                return _own_hpu(local_rank)
            nothing_else = "neither a CUDA GPU nor a Gaudi is visible"
    if config.device == "cpu" or (config.device == "auto" and gpus == 0):
        threads = torch.get_num_threads()
        why = "asked for" if config.device == "cpu" else nothing_else
        return ChosenDevice(torch.device("cpu"), f"cpu, {threads} threads ({why})")
    _refuse_too_many("cuda", "GPU", local_rank, gpus)
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return ChosenDevice(device, f"{device}, {torch.cuda.get_device_name(device)}")


def _own_hpu(local_rank: int) -> ChosenDevice:
    """Return a process's HPU: it sees only one, which `hpu.join` chooses for it."""
    count = hpu.count()
    if not count:
        raise ConfigError("--device hpu", ["no Gaudi is visible to this process; does hl-smi list one?"])
    _refuse_too_many("hpu", "Gaudi", local_rank, count)
    return ChosenDevice(torch.device("hpu"), f"hpu, {hpu.describe()}")


def _refuse_too_many(name: str, kind: str, local_rank: int, count: int) -> None:
    if local_rank >= count:
        problem = (
            f"local rank {local_rank} wants a {kind} of its own, found {count}; start at most {count} ranks a node."
        )
        raise ConfigError(f"--device {name}", [problem])


def gpu_count() -> int:
    """Return how many CUDA GPUs this process sees."""
    return torch.cuda.device_count()


def wants_fixed_shapes(device: torch.device) -> bool:
    """Whether a device compiles every shape of tensors anew, so that there had better be few."""
    return device.type == "hpu"


def widest_float(device: torch.device) -> torch.dtype:
    """Return the dtype for sums on a device: float64 where it has that (Gaudi has not: Habana's support matrix)."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def end_graph(device: torch.device) -> None:
    """Hand over what was computed so far, on a device that gathers operators into a graph; others have it already."""
    if device.type == "hpu":
        hpu.mark_step()


def replayed(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a module that replays its forward pass for each shape of its arguments, where a device does so best.

    Args:
        module: takes tensors and nothing else, in evaluation mode; its weights do not change any more.
        device: of its weights.
    """
    return hpu.replayed(module) if device.type == "hpu" else module


def seed_dropout(seed: int) -> None:
    """Make dropout in the next forward pass a function of `seed` alone, on every device."""
    torch.manual_seed(seed)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a host tensor to a device; to a GPU through pinned memory, so that the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def storable(values: Any, device: torch.device) -> Any:
    """Return nested dicts and lists of a device's tensors as a file can hold them: those of a Gaudi as host tensors."""
    if device.type != "hpu":
        return values
    if isinstance(values, torch.Tensor):
        return values.cpu()
    if isinstance(values, dict):
        return {key: storable(value, device) for key, value in values.items()}
    return [storable(value, device) for value in values] if isinstance(values, list) else values


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: allocated on a GPU or Gaudi, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if device.type == "hpu":
        return hpu.peak_memory() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


def forget_peak_memory(device: torch.device) -> None:
    """Count `peak_memory_gib` of a GPU or Gaudi from now on; a process's own cannot be counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "hpu":
        hpu.forget_peak_memory()


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """Return a GPU's compute capability, (9, 0) for an H100; None for other devices."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None
