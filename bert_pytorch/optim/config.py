"""Configuration of the optimizer, and building it."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.optim.adamw import build_adamw
from bert_pytorch.optim.groups import layered_groups, parameter_groups
from bert_pytorch.optim.habana import build_on_hpu
from bert_pytorch.optim.lamb import Lamb


class OptimizerConfig(Settings):
    """Optimizer and its hyper-parameters."""

    optimizer: Literal["lamb", "adamw"] = "lamb"
    """lamb for batches of thousands of sequences (You et al. 2020), adamw for smaller ones and for fine-tuning."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate, reached after warm-up. BERT-large with LAMB: 6e-3 at 65,536 sequences (NVIDIA)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; biases and LayerNorm take none (Devlin et al. 2019, A.2)."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment (Devlin et al. 2019, A.2)."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment; RoBERTa takes 0.98 (Liu et al. 2019, section 3.1)."""
    adam_epsilon: float = Field(1e-6, gt=0)
    """Added to the root of the second moment (google-research/bert)."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients of one update are scaled down to this L2 norm over all parameters; 0 for no clipping."""
    shard_optimizer: bool = False
    """Each rank keeps moments of its own part of the parameters (ZeRO stage 1): 8 bytes a parameter over the ranks."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "lr": "--learning_rate",
        "use_fused_lamb": "--optimizer lamb, which on Gaudi is Habana's FusedLamb where there is one",
        "clip_norm": "--max_grad_norm",
        "clip_grad": "--max_grad_norm",
        "adam_eps": "--adam_epsilon",
        "adam_betas": "--adam_beta1 and --adam_beta2",
        "use_zero_optimizer": "--shard_optimizer",
    }


def build_optimizer(
    config: OptimizerConfig,
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]],
    *,
    layer_decay: float = 1.0,
    layers: int = 0,
) -> torch.optim.Optimizer:
    """Build the configured optimizer over the trainable ones of `named_parameters`.

    Its learning rate is the peak; the training loop sets each group's `lr` before every update.  Clipping is not in it.

    Args:
        config: which, and its hyper-parameters.
        named_parameters: as from `module.named_parameters()`.
        layer_decay: learning rate of a layer as a part of that of the layer above it; 1: all have the same.
        layers: of the encoder, where `layer_decay` is not 1.
    """
    if layer_decay == 1:
        groups = parameter_groups(named_parameters, config.weight_decay)
    else:
        groups = layered_groups(named_parameters, config.weight_decay, layer_decay, layers)
    betas = (config.adam_beta1, config.adam_beta2)
    fused = build_on_hpu(
        config.optimizer, groups, learning_rate=config.learning_rate, betas=betas, eps=config.adam_epsilon
    )
    if fused is not None:
        return fused
    if config.optimizer == "lamb":
        return Lamb(groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon)
    return build_adamw(groups, learning_rate=config.learning_rate, betas=betas, eps=config.adam_epsilon)
