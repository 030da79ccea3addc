"""Initial weights: one rule for all layers, from one generator, so that they depend on the seed alone."""

import torch
from torch import nn


@torch.no_grad()
def initialize_weights(model: nn.Module, seed: int) -> None:
    """Draw every Linear and Embedding weight from N(0, initializer_range²); biases 0, LayerNorm 1 and 0.

    A Linear layer's `initial_scale` multiplies its standard deviation.

    Values are drawn in float32 on the CPU, in the order of the modules: the same on every rank, device and after
    materialising from the meta device.  Rows of the word embedding past the vocabulary are zero.

    Args:
        model: has `config` and `vocab_size`.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)
    scale: float = model.config.initializer_range  # type: ignore[union-attr,assignment]
    vocab_size: int = model.vocab_size  # type: ignore[assignment]
    initialized = set()
    for name, module in model.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            initialized.add(id(parameter))
            if isinstance(module, nn.LayerNorm):
                parameter.fill_(1.0 if parameter_name == "weight" else 0.0)
            elif parameter_name == "weight":
                rows = vocab_size if name.endswith("word_embeddings") else parameter.shape[0]
                deviation = scale * getattr(module, "initial_scale", 1.0)
                drawn = torch.empty(rows, *parameter.shape[1:]).normal_(0.0, deviation, generator=generator)
                parameter[:rows].copy_(drawn)
                parameter[rows:].zero_()
            else:
                parameter.zero_()
    assert initialized == {id(parameter) for parameter in model.parameters()}
