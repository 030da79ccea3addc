"""Each Triton kernel against its reference in float64, forward and backward: on a GPU, else by the interpreter."""

from functools import partial

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from bert_pytorch.kernels.attention import Bias, Sequences, attention_reference
from bert_pytorch.kernels.gelu import bias_gelu_reference, geglu_reference
from bert_pytorch.kernels.residual_norm import residual_dropout_norm_reference
from bert_pytorch.kernels.triton_attention import attention
from bert_pytorch.kernels.triton_gelu import bias_gelu, geglu
from bert_pytorch.kernels.triton_residual_norm import residual_dropout_norm
from tests.support.kernel_checks import DEVICE, TOLERANCES, assert_equals_reference

HALVES = [torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
"""What attention is tested in besides float32: the interpreter multiplies the bits of bfloat16 matrices as integers."""


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "width", "parts"),
    [
        (150, 128, "residual bias shift"),
        (3, 768, "residual bias shift"),
        (5, 24, "residual"),
        (5, 24, "bias"),
        (5, 24, ""),
    ],
)
def test_residual_norm_equals_reference(tokens: int, width: int, parts: str, dtype: torch.dtype) -> None:
    inputs = [
        normal(tokens, width, dtype=dtype),
        normal(tokens, width, dtype=dtype, seed=1) if "residual" in parts else None,
        normal(width, seed=2) if "bias" in parts else None,
        normal(width, seed=3),
        normal(width, seed=4) if "shift" in parts else None,
    ]
    settings = {"dropout_p": 0.0, "eps": 1e-6}
    ours, theirs = partial(residual_dropout_norm, **settings), partial(residual_dropout_norm_reference, **settings)
    assert_equals_reference(ours, theirs, inputs, TOLERANCES[dtype])


def test_no_tokens_give_no_rows_and_zero_gradients() -> None:
    weight = torch.ones(32, device=DEVICE, requires_grad=True)
    empty = torch.empty(0, 32, device=DEVICE, requires_grad=True)
    residual_dropout_norm(empty, empty, weight, weight, weight, 0.1, 1e-6)[0].sum().backward()
    bias_gelu(empty, weight).sum().backward()
    assert empty.grad.shape == (0, 32)
    assert not weight.grad.any()


def test_residual_stream_may_be_wider_than_the_block() -> None:
    inputs = [normal(9, 64, dtype=torch.bfloat16), normal(9, 64, seed=1), None, normal(64, seed=2), None]
    settings = {"dropout_p": 0.0, "eps": 1e-6}
    ours, theirs = partial(residual_dropout_norm, **settings), partial(residual_dropout_norm_reference, **settings)
    given = [None if value is None else value.to(DEVICE) for value in inputs]
    assert [output.dtype for output in ours(*given)] == [output.dtype for output in theirs(*given)]
    assert_equals_reference(ours, theirs, inputs, TOLERANCES[torch.bfloat16])


def test_dropout_drops_the_given_share_and_the_backward_pass_drops_the_same_entries() -> None:
    torch.manual_seed(3)
    x = torch.rand(96, 200, device=DEVICE).add(1).requires_grad_()
    bias, residual = torch.zeros(200, device=DEVICE), torch.zeros(96, 200, device=DEVICE)
    weight = torch.ones(200, device=DEVICE)
    _, total = residual_dropout_norm(x, residual, bias, weight, None, 0.25, 1e-6)
    dropped = total == 0
    deviation = (0.25 * 0.75 / x.numel()) ** 0.5
    assert abs(dropped.double().mean().item() - 0.25) < 4 * deviation
    assert dropped.double().mean(0).std() < 2 * (0.25 * 0.75 / 96) ** 0.5  # no column or row has its own share
    assert dropped.double().mean(1).std() < 2 * (0.25 * 0.75 / 200) ** 0.5
    torch.testing.assert_close(total[~dropped], (x / 0.75)[~dropped])
    total.sum().backward()
    torch.testing.assert_close(x.grad, (~dropped) / 0.75)


def test_dropout_with_its_own_mask_equals_reference() -> None:
    inputs = [value.to(DEVICE) for value in (normal(40, 96), normal(40, 96, seed=1), normal(96, seed=2))]
    weight, shift = (normal(96, seed=seed).to(DEVICE) for seed in (3, 4))

    def kernel(x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(11)
        return residual_dropout_norm(x, residual, bias, weight, shift, 0.5, 1e-6)

    ones, zeros = torch.ones(40, 96, device=DEVICE), torch.zeros(40, 96, device=DEVICE)
    mask = kernel(ones, zeros, zeros[0], weight, shift)[1]  # 0 or 2

    def reference(x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        return residual_dropout_norm_reference((x + bias) * mask, residual, None, weight, shift, 0.0, 1e-6)

    assert_equals_reference(kernel, reference, [*inputs, weight, shift], TOLERANCES[torch.float32])


def test_dropout_is_a_function_of_the_seed_and_differs_between_calls() -> None:
    def masks() -> list[Tensor]:
        torch.manual_seed(5)
        ones, weight = torch.ones(20, 64, device=DEVICE), torch.ones(64, device=DEVICE)
        return [residual_dropout_norm(ones, None, None, weight, None, 0.5, 1e-6)[1] for _ in range(2)]

    (first, second), (first_again, second_again) = masks(), masks()
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert 0.4 < (first == second).double().mean() < 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "width"), [(5, 24), (130, 260)])
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "reference", "inputs"), [(bias_gelu, bias_gelu_reference, 1), (geglu, geglu_reference, 2)]
)
def test_gelu_equals_reference(kernel, reference, inputs, tokens, width, dtype, tanh, with_bias) -> None:
    x = 2 * normal(tokens, inputs * width, dtype=dtype)
    bias = normal(inputs * width, seed=1) if with_bias else None
    tolerance = max(TOLERANCES[dtype], 4e-6 if tanh else 0)  # 1 - tanh² loses digits where x is about 8
    assert_equals_reference(partial(kernel, tanh=tanh), partial(reference, tanh=tanh), [x, bias], tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("lengths", [(5, 0, 17, 33), (130, 1, 70)], ids=["one tile", "few"])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("alibi", [False, True])
def test_attention_equals_reference(lengths, dtype, window, alibi) -> None:
    edges = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()
    sequences = Sequences(edges, edges, max(lengths), max(lengths))
    bias = Bias(torch.tensor([0.5, 0.25], device=DEVICE) if alibi else None, window)
    assert_attends_as_reference(sequences, bias, sum(lengths), sum(lengths), dtype)


@pytest.mark.parametrize("lengths", [(5, 0, 17, 33), (130, 1, 70)], ids=["one tile", "few"])
@pytest.mark.parametrize("bias", [Bias(), Bias(torch.tensor([0.5, 0.25]), 20)], ids=["full", "alibi window"])
def test_attention_of_some_queries_equals_reference(lengths, bias) -> None:
    starts = torch.tensor([0, *lengths]).cumsum(0)
    asking = torch.cat([start + torch.arange(0, length, 3) for start, length in zip(starts, lengths, strict=False)])
    asking = asking[(asking < starts[1]) | (asking >= starts[-2])]  # none of those in the middle
    edges = torch.searchsorted(asking, starts)
    places = asking - starts[torch.searchsorted(starts, asking, right=True) - 1]
    moved = (tensor.int().to(DEVICE) for tensor in (edges, starts, places))
    cu_queries, cu_keys, positions = moved
    sequences = Sequences(cu_queries, cu_keys, max(lengths), max(lengths), positions)
    bias = Bias(None if bias.slopes is None else bias.slopes.to(DEVICE), bias.window)
    assert_attends_as_reference(sequences, bias, len(asking), sum(lengths), torch.float32)


def assert_attends_as_reference(sequences, bias, queries: int, keys: int, dtype: torch.dtype) -> None:
    joint = [normal(count, 2, 16, dtype=dtype, seed=seed) for seed, count in enumerate((queries, keys, keys))]
    assert_equals_reference(
        lambda *qkv: attention(*qkv, sequences, bias),
        lambda *qkv: attention_reference(*qkv, sequences, bias),
        joint,
        TOLERANCES[dtype],
    )


def test_attention_at_head_size_64_on_a_joint_projection_equals_torch() -> None:
    lengths = (50, 70)
    qkv = normal(120, 3, 2, 64).to(DEVICE)
    edges = torch.tensor([0, 50, 120], device=DEVICE).int()
    found = attention(*qkv.unbind(1), Sequences(edges, edges, 70, 70), Bias())
    wanted = [
        torch.nn.functional.scaled_dot_product_attention(*part.permute(1, 2, 0, 3)).transpose(0, 1)
        for part in qkv.double().split(lengths)
    ]
    torch.testing.assert_close(found.double(), torch.cat(wanted), rtol=1e-5, atol=1e-6)
