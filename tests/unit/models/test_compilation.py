"""Compiled blocks compute what the model computes without them, and a machine that cannot compile goes on."""

import logging
import shutil

import pytest
import torch
from torch import Tensor

from bert_pytorch.models.build import build_model
from bert_pytorch.models.layers import blocks_between_attentions
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.runtime.compilation import compile_modules
from tests.support.architectures import config_of
from tests.support.packed_batches import random_batch

CPU = torch.device("cpu")


def losses_and_gradients(model: PretrainingModel, lengths: list[int]) -> list[Tensor]:
    terms = model(random_batch(lengths))
    assert terms.nsp_loss_sum is not None
    loss = terms.mlm_loss_sum + terms.nsp_loss_sum
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_model_has_the_same_names_losses_and_gradients_for_batches_of_any_size() -> None:
    config = config_of("bert", num_hidden_layers=2)
    plain, compiled = build_model(config, seed=1), build_model(config, seed=1)
    assert compile_modules(blocks_between_attentions(compiled), CPU)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for lengths in ([9, 30, 4], [17, 3], [40, 40, 40, 8]):
        pairs = list(zip(losses_and_gradients(compiled, lengths), losses_and_gradients(plain, lengths), strict=True))
        largest = max(float(wanted.abs().max()) for _, wanted in pairs[1:])
        for found, wanted in pairs:  # sums of some hundred float32 terms in another order; key biases have no gradient
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6 * largest)


def test_a_machine_without_a_compiler_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object, **_options: object) -> object:
        raise RuntimeError("No working C++ compiler found in cpp.cxx\nmore lines")

    monkeypatch.setattr(torch, "compile", broken)
    model = build_model(config_of("bert"), seed=1)
    with caplog.at_level(logging.WARNING):
        assert not compile_modules(blocks_between_attentions(model), CPU)
    assert "No working C++ compiler" in caplog.text
    assert "g++" in caplog.text
    losses_and_gradients(model, [9, 4])
