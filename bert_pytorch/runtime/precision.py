"""Numeric precision of forward and backward passes; parameters and optimizer state stay fp32."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import torch

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime.distributed import World


class PrecisionConfig(Settings):
    """Numeric precision."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products: auto takes bf16 on Gaudi and where the GPU has it, fp16 with loss scaling on older
    GPUs, and fp32 on CPUs, where most emulate bf16 many times slower."""
    fp16: bool = False
    """The same as --precision fp16."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "amp": "--precision fp16 (or auto)",
        "bf16": "--precision bf16",
        "autocast": "--precision bf16",
        "hmp": "--precision bf16",
        "hmp_bf16": "nothing: torch.autocast has lists of operators of its own",
        "hmp_fp32": "nothing: torch.autocast has lists of operators of its own",
        "hmp_opt_level": "--precision bf16",
        "hmp_verbose": "nothing: torch.autocast tells nothing",
        "loss_scale": "nothing: with --precision fp16 the loss scale adapts itself",
        "init_loss_scale": "nothing: with --precision fp16 the loss scale adapts itself",
        "allreduce_post_accumulation": "nothing: gradients are always reduced once an update",
        "allreduce_post_accumulation_fp16": "nothing: gradients are always reduced once an update, in fp32",
    }

    def combination_problems(self) -> Iterator[str]:
        """Refuse two different precisions at once."""
        yield from super().combination_problems()
        if self.fp16 and self.precision not in ("auto", "fp16"):
            yield f"--fp16 means --precision fp16, found --precision {self.precision} as well; keep one of them."


class Precision(NamedTuple):
    """A chosen precision and why."""

    name: Literal["fp32", "bf16", "fp16"]
    reason: str
    device_type: str

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self, *, cache_weights: bool = True) -> contextlib.AbstractContextManager[None]:
        """Return the context in which forward passes run.

        Args:
            cache_weights: whether a weight that is used twice is cast once.
        """
        if self.name == "fp32":
            return contextlib.nullcontext()
        # The cache of cast weights would outlive an update under gradient accumulation's single context: one a pass.
        return torch.autocast(self.device_type, dtype=self.dtype, cache_enabled=cache_weights)

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """Return a loss scaler, a no-op unless the precision is fp16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")


def choose_precision(config: PrecisionConfig, device: torch.device) -> Precision:
    """Choose the precision for a device.

    Raises:
        ConfigError: if it is asked for what the device is not used with.
    """
    if device.type == "hpu" and (config.fp16 or config.precision == "fp16"):
        raise ConfigError("--precision fp16", ["a Gaudi computes in bf16 or fp32 here; leave it out for bf16."])
    if config.fp16 or config.precision != "auto":
        name = "fp16" if config.fp16 else config.precision
        assert name != "auto"
        slow = device.type == "cpu" and name != "fp32"
        return Precision(name, "asked for" + ("; CPUs without AMX emulate it slowly" if slow else ""), device.type)
    if device.type == "cpu":
        return Precision("fp32", "auto: a CPU, where fp32 matrix products are the fast ones", device.type)
    if device.type == "hpu":
        return Precision("bf16", "auto: what Gaudi's matrix engines are made for", device.type)
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return Precision("bf16", "auto: this GPU has bf16 matrix units", device.type)
    return Precision("fp16", "auto: this GPU has fp16 but no bf16 matrix units", device.type)


def agree_on_precision(config: PrecisionConfig, device: torch.device, world: World) -> Precision:
    """Choose one precision for all ranks, whose GPUs may be of different kinds; all ranks call this together.

    Gradients are added over ranks as they are: one that scales its loss must not meet one that does not.
    """
    own = choose_precision(config, device)
    names = world.union([own.name])
    if len(names) == 1:
        return own
    shared: Literal["fp32", "fp16"] = "fp32" if "fp32" in names else "fp16"
    return Precision(shared, f"auto: what all ranks can do, of {', '.join(names)}", device.type)
