"""Configuration of optimizer and schedule: defaults, ranges, what builds what."""

import pytest
import torch
from pydantic import ValidationError

from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.lamb import Lamb
from bert_pytorch.optim.schedules import ScheduleConfig


def one_parameter():
    return [("dense.weight", torch.nn.Parameter(torch.ones(2)))]


def test_lamb_is_the_default_with_berts_hyper_parameters():
    (group,) = build_optimizer(OptimizerConfig(learning_rate=6e-3), one_parameter()).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (6e-3, (0.9, 0.999), 1e-6, 0.01)


def test_each_name_builds_its_optimizer():
    built = {
        name: type(build_optimizer(OptimizerConfig(optimizer=name), one_parameter())) for name in ("lamb", "adamw")
    }
    assert built == {"lamb": Lamb, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (OptimizerConfig, {"learning_rate": 0.0}),
        (OptimizerConfig, {"adam_beta1": 1.0}),
        (OptimizerConfig, {"weight_decay": -0.1}),
        (OptimizerConfig, {"max_grad_norm": -1.0}),
        (OptimizerConfig, {"optimizer": "sgd"}),
        (ScheduleConfig, {"warmup_proportion": 1.1}),
        (ScheduleConfig, {"lr_end": 0.0}),
        (ScheduleConfig, {"lr_decay": "exponential"}),
    ],
)
def test_value_out_of_range_is_refused(settings, values):
    with pytest.raises(ValidationError):
        settings(**values)


@pytest.mark.parametrize("settings", [OptimizerConfig, ScheduleConfig])
def test_every_field_is_documented(settings):
    assert all(field.description for field in settings.model_fields.values())
