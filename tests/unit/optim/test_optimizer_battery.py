"""One battery for the family: what every optimizer that `build_optimizer` builds must do."""

import copy

import pytest
import torch

from bert_pytorch.errors import InputError
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.state import load_optimizer_state

OPTIMIZERS = ["lamb", "adamw"]


class Toy(torch.nn.Module):
    """A layer, a LayerNorm under its BERT name, and a parameter that no loss touches."""

    def __init__(self, seed: int = 0, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.dense = torch.nn.Linear(width, width)
        self.LayerNorm = torch.nn.LayerNorm(width)
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(x))


def config(name: str, **values: float) -> OptimizerConfig:
    return OptimizerConfig(optimizer=name, **{"learning_rate": 0.02, "weight_decay": 0.1, **values})


def train(model: Toy, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(2, 16, 6, generator=generator)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


def state_through_a_file(optimizer, path):
    torch.save(optimizer.state_dict(), path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_converges_on_a_quadratic(name):
    torch.manual_seed(0)
    target = torch.randn(8, 8)
    param = torch.nn.Parameter(torch.randn(8, 8))
    optimizer = build_optimizer(config(name, weight_decay=0.0001), [("weight", param)])
    first = (param - target).square().sum().item()
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        optimizer.zero_grad()
        (param - target).square().sum().backward()
        optimizer.step()
    assert (param - target).square().sum().item() < 1e-4 * first


@pytest.mark.parametrize("restore", ["torch", "ours"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restored_state_continues_in_lockstep(name, restore, tmp_path):
    model = Toy()
    optimizer = build_optimizer(config(name), model.named_parameters())
    train(model, optimizer, range(5))
    twin = copy.deepcopy(model)
    twin_optimizer = build_optimizer(config(name), twin.named_parameters())
    state = state_through_a_file(optimizer, tmp_path / "state.pt")
    if restore == "torch":
        twin_optimizer.load_state_dict(state)
    else:
        load_optimizer_state(twin_optimizer, state, "state.pt")
    train(model, optimizer, range(5, 10))
    train(twin, twin_optimizer, range(5, 10))
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    fresh = copy.deepcopy(Toy())
    train(fresh, build_optimizer(config(name), fresh.named_parameters()), range(5, 10))
    assert not torch.equal(fresh.dense.weight, model.dense.weight)  # so the state did count


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_gradient_are_left_alone(name):
    model = Toy()
    before = copy.deepcopy(model.unused.state_dict())
    optimizer = build_optimizer(config(name), model.named_parameters())
    train(model, optimizer, range(3))
    assert all(torch.equal(value, before[key]) for key, value in model.unused.state_dict().items())
    assert not any(parameter in optimizer.state for parameter in model.unused.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_group_has_its_own_rate_and_decay(name):
    model = Toy()
    optimizer = build_optimizer(config(name), model.named_parameters())
    decayed, undecayed = optimizer.param_groups
    assert decayed["param_names"] == ["dense.weight", "unused.weight"]
    assert undecayed["param_names"] == ["dense.bias", "LayerNorm.weight", "LayerNorm.bias", "unused.bias"]
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    undecayed["lr"] = 0.0
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(1))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"dense.weight"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_alone_shrinks_weights_and_not_biases(name):
    model = Toy()
    optimizer = build_optimizer(config(name), model.named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = copy.deepcopy(model.state_dict())
    optimizer.step()
    after = model.state_dict()
    # LAMB scales the update to the weights' own norm: lr, where AdamW takes lr * weight_decay.
    shrunk = 1 - (0.02 if name == "lamb" else 0.02 * 0.1)
    torch.testing.assert_close(after["dense.weight"], shrunk * before["dense.weight"])
    assert torch.equal(after["dense.bias"], before["dense.bias"])


def test_adamw_equals_torch_adamw_with_the_same_groups():
    ours, theirs = Toy().double(), Toy().double()
    optimizer = build_optimizer(config("adamw", adam_beta2=0.98, adam_epsilon=1e-5), ours.named_parameters())
    undecayed = [parameter for name, parameter in theirs.named_parameters() if "bias" in name or "LayerNorm" in name]
    decayed = [
        parameter for name, parameter in theirs.named_parameters() if name.endswith("weight") and "L" not in name
    ]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": undecayed, "weight_decay": 0.0}],
        lr=0.02,
        betas=(0.9, 0.98),
        eps=1e-5,
        foreach=False,
    )
    for step in range(10):
        for model, stepped in ((ours, optimizer), (theirs, reference)):
            x, y = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(step)).double()
            stepped.zero_grad()
            (model(x) - y).square().mean().backward()
            stepped.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_changed_hyper_parameters_count_after_restoring(name, tmp_path):
    model = Toy()
    optimizer = build_optimizer(config(name), model.named_parameters())
    train(model, optimizer, range(3))
    state = state_through_a_file(optimizer, tmp_path / "state.pt")
    changed = build_optimizer(config(name, learning_rate=0.5, weight_decay=0.3), model.named_parameters())
    load_optimizer_state(changed, state, "state.pt")
    assert [group["lr"] for group in changed.param_groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in changed.param_groups] == [0.3, 0.0]
    moments = changed.state[model.dense.weight]["exp_avg"]
    assert torch.equal(moments, optimizer.state[model.dense.weight]["exp_avg"])
    if name == "lamb":
        assert [group["step"] for group in changed.param_groups] == [3, 3]
    else:
        assert changed.state[model.dense.weight]["step"] == 3


@pytest.mark.parametrize(("saved", "wanted"), [("lamb", "adamw"), ("adamw", "lamb")])
def test_state_of_another_optimizer_is_refused(saved, wanted):
    model = Toy()
    optimizer = build_optimizer(config(saved), model.named_parameters())
    train(model, optimizer, range(1))
    other = build_optimizer(config(wanted), model.named_parameters())
    with pytest.raises(InputError, match=r"ckpt_1\.pt: it holds the state of another optimizer"):
        load_optimizer_state(other, optimizer.state_dict(), "ckpt_1.pt")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_of_another_model_is_refused(name):
    model = Toy()
    optimizer = build_optimizer(config(name), model.named_parameters())
    train(model, optimizer, range(1))
    wider = build_optimizer(config(name), Toy(width=7).named_parameters())
    with pytest.raises(InputError, match=r"moments of dense\.weight have shape \(6, 6\), wanted \(7, 7\)"):
        load_optimizer_state(wider, optimizer.state_dict(), "ckpt_1.pt")
    renamed = build_optimizer(config(name), ((f"bert.{key}", value) for key, value in model.named_parameters()))
    with pytest.raises(InputError, match="other parameters"):
        load_optimizer_state(renamed, optimizer.state_dict(), "ckpt_1.pt")
