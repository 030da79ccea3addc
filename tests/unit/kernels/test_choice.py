"""Choosing: what is asked for, what the run used, what can be used, what is fastest, in this order."""

import pytest
import torch

from bert_pytorch.kernels.choice import Candidate, choose
from bert_pytorch.kernels.registry import TORCH, TRITON, choose_kernels, describe, in_use, triton_problem, use

THREE = [Candidate("new", "no compiler"), Candidate("fast"), Candidate("plain")]
SECONDS = {"fast": 0.003, "plain": 0.002}


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        ({}, "fast", "the first that can be used; new: no compiler"),
        ({"asked": "plain", "saved": "fast", "measure": SECONDS.get}, "plain", "asked for"),
        ({"saved": "fast", "measure": SECONDS.get}, "fast", "as this run did so far"),
        (
            {"saved": "new", "measure": SECONDS.get},
            "plain",
            "measured: plain 2.000 ms, fast 3.000 ms; new: no compiler",
        ),
        ({"saved": "gone"}, "fast", "the first that can be used; new: no compiler"),
        ({"measure": SECONDS.get}, "plain", "measured: plain 2.000 ms, fast 3.000 ms; new: no compiler"),
    ],
)
def test_choice_and_its_reason(arguments: dict[str, object], name: str, reason: str) -> None:
    assert choose(THREE, **arguments) == (name, reason)


def test_a_candidate_that_fails_when_measured_is_ruled_out_with_its_reason() -> None:
    def measure(name: str) -> float:
        if name == "fast":
            raise RuntimeError("out of shared memory\nand more")
        return 1.0

    chosen = choose(THREE, measure=measure)
    assert chosen.name == "plain"
    assert "fast: RuntimeError: out of shared memory" in chosen.reason


def test_where_all_fail_the_last_serves() -> None:
    def measure(name: str) -> float:
        raise RuntimeError(name)

    assert choose(THREE, measure=measure).name == "plain"


def test_the_only_one_is_not_measured() -> None:
    def measure(name: str) -> float:
        pytest.fail("measured")

    assert choose([Candidate("new", "no compiler"), Candidate("plain")], measure=measure) == (
        "plain",
        "new: no compiler",
    )


@pytest.mark.parametrize(("asked", "why"), [("new", "no compiler"), ("gone", "unknown")])
def test_asking_for_what_cannot_be_used_says_why_and_what_can(asked: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"{asked} cannot be used: {why}; found usable: fast, plain"):
        choose(THREE, asked=asked)


def test_without_cuda_every_kernel_is_torch() -> None:
    choices = choose_kernels(triton_problem("cpu", None))
    assert {choice.name for choice in choices.values()} == {TORCH}
    assert describe(choices) == "residual_norm, bias_gelu, geglu, lamb torch (no CUDA)"


def test_kernels_are_used_only_where_faster() -> None:
    seconds = {TRITON: 0.001, TORCH: 0.002}
    choices = choose_kernels(None, measure=lambda name, way: seconds[way] * (-1 if name == "geglu" else 1))
    assert {name: choice.name for name, choice in choices.items()} == {
        "residual_norm": TRITON,
        "bias_gelu": TRITON,
        "geglu": TORCH,
        "lamb": TRITON,
    }


def test_a_resumed_run_uses_the_same_kernels_without_measuring() -> None:
    def measure(name: str, way: str) -> float:
        pytest.fail("measured")

    saved = {"residual_norm": TORCH, "bias_gelu": TRITON, "geglu": TORCH, "lamb": TRITON}
    choices = choose_kernels(None, saved=saved, measure=measure)
    assert {name: choice.name for name, choice in choices.items()} == saved


def test_compiled_layers_leave_fusing_to_inductor() -> None:
    choices = choose_kernels(None, compiled=True)
    assert choices["residual_norm"] == (TORCH, "triton: inductor fuses it")
    assert choices["lamb"].name == TRITON


@pytest.mark.parametrize(
    ("device", "capability", "interpreted", "problem"),
    [
        ("cpu", None, False, "no CUDA"),
        ("cuda", (7, 0), False, "compute capability 7.0, wanted 8.0 or more"),
        ("cuda", (9, 0), True, "TRITON_INTERPRET=1 runs Triton in Python; unset it"),
    ],
)
def test_why_triton_cannot_run(device, capability, interpreted, problem, monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    assert triton_problem(device, capability) == problem


def test_what_is_used_is_forgotten_when_something_else_is() -> None:
    tensor = torch.zeros(1)
    use({"lamb": TRITON, "geglu": TORCH}, "cpu")
    assert (in_use("lamb", tensor), in_use("geglu", tensor)) == (True, False)
    use({"lamb": TRITON}, "cuda")
    assert not in_use("lamb", tensor)
    use({})
    assert not in_use("lamb", tensor)
