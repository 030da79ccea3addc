"""While hooks wait for a layer's calls, no fast path goes past them; without hooks, fast paths are taken."""

import pytest
import torch
from torch import nn

from bert_pytorch.models import layers
from tests.support.architectures import config_of, spread_model
from tests.support.packed_batches import random_batch


class KernelIsTakenError(Exception):
    pass


def kernel_is_taken(name: str) -> None:
    raise KernelIsTakenError(name)


@pytest.mark.parametrize("kind", ["bert", "mosaic_bert", "modernbert"])
def test_hooks_see_every_linear_layer_once_though_kernels_are_in_use(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spread_model(config_of(kind))
    batch = random_batch((5, 9), pairs=kind == "bert")
    wanted = model(batch).mlm_loss_sum
    monkeypatch.setattr(layers, "in_use", lambda name, tensor: True)
    monkeypatch.setattr(layers, "triton_function", kernel_is_taken)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    called: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *call, name=name: called.append(name)) for name in linear
    ]
    found = model(batch).mlm_loss_sum
    assert sorted(called) == sorted(linear)
    assert torch.allclose(found, wanted, rtol=1e-5)
    for handle in handles:
        handle.remove()
    with pytest.raises(KernelIsTakenError):
        model(batch)
