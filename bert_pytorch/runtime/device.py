"""Devices: choosing one, its memory, and the generator that dropout draws from."""

import resource
from typing import Literal, NamedTuple

import torch

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError


class DeviceConfig(Settings):
    """Where the model runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model: auto takes a CUDA GPU where there is one, else the CPU."""
    measure_peak: bool = False
    """Measure at the start, in a few seconds, how fast matrix products of the model's shapes are, for `mfu` in the
    metrics; without it a GPU's data sheet counts, and a CPU has none."""


class ChosenDevice(NamedTuple):
    """A device and why it was chosen."""

    device: torch.device
    reason: str


def choose_device(config: DeviceConfig, local_rank: int) -> ChosenDevice:
    """Choose this rank's device.

    Raises:
        ConfigError: if a GPU is asked for and there is none for this rank.
    """
    count = gpu_count()
    if config.device == "cpu" or (config.device == "auto" and count == 0):
        threads = torch.get_num_threads()
        why = "asked for" if config.device == "cpu" else "no CUDA GPU is visible"
        return ChosenDevice(torch.device("cpu"), f"cpu, {threads} threads ({why})")
    if local_rank >= count:
        problem = f"local rank {local_rank} wants a GPU of its own, found {count}; start at most {count} ranks a node."
        raise ConfigError("--device cuda", [problem])
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return ChosenDevice(device, f"{device}, {torch.cuda.get_device_name(device)}")


def gpu_count() -> int:
    """Return how many CUDA GPUs this process sees."""
    return torch.cuda.device_count()


def seed_dropout(seed: int) -> None:
    """Make dropout in the next forward pass a function of `seed` alone, on every device."""
    torch.manual_seed(seed)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a host tensor to a device; to a GPU through pinned memory, so that the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


def forget_peak_memory(device: torch.device) -> None:
    """Count `peak_memory_gib` of a GPU from now on; a process's own cannot be counted anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """Return a GPU's compute capability, (9, 0) for an H100; None for other devices."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None
