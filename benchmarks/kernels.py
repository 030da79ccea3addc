"""How fast are matrix products at BERT's shapes, and each kernel and way of attending beside its alternatives, here?

    python -m benchmarks.kernels [--model bert_large_uncased] [--tokens 16384] [--device cuda]

The ceiling comes first: GEMM rates at the model's own shapes, forward and backward, on random numbers.  Then LAMB over
all of the model's parameters (goal H8) and the element-wise kernels, Triton beside torch; then attention on Wikipedia's
lengths at 128 and 512 tokens, forward and backward, every way that can be used.  Times are medians after warm-up; ways
alternate within one run.  A JSON line a row, and one of all at the end.  On a CPU it shows only that it runs: take
--tokens 512.

tflops        of the product, 2 m n k, or of attention's two products forward and four backward (padding not counted)
gb_per_second of what the kernel must read and write at least
error         of attention: largest deviation from the reference in float32, relative to its largest entry
"""

import argparse
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.kernels.cases import Shape, one_step
from bert_pytorch.kernels.registry import TORCH, TRITON, triton_problem
from bert_pytorch.models.attention import ReferenceAttention
from bert_pytorch.models.attention_choice import (
    Machine,
    Needs,
    candidates,
    make_attention,
    measured_seconds,
    sample_batch,
)
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.models.patterns import FULL, Pattern, alibi_slopes
from bert_pytorch.optim.lamb import Lamb
from bert_pytorch.runtime.device import compute_capability
from bert_pytorch.runtime.timing import seconds_per_call
from tests.support.lengths import wikipedia_histogram

Row = dict[str, object]


def main() -> None:
    """Print one JSON line a measurement, then one of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="bert_large_uncased")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, model = torch.device(options.device), load_model_config(options.model)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows = [
        *gemm_rows(model, options.tokens, dtype, device),
        *lamb_rows(model, device),
        *kernel_rows(model, options.tokens, dtype, device),
        *attention_rows(model, options.tokens, dtype, device),
    ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {"benchmark": "kernels", "device": name, "torch": torch.__version__, "model": options.model}
    print(json.dumps({**about, "tokens": options.tokens, "goal": "H8", "rows": rows}))


def gemm_rows(model: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> list[Row]:
    """Measure the products of a layer and of the decoder: forward, and for the gradients of input and weight."""
    hidden, wide = model.hidden_size, model.intermediate_size
    masked = max(8, tokens * 15 // 100)
    shapes = {
        "qkv": (tokens, 3 * hidden, hidden),
        "attention output": (tokens, hidden, hidden),
        "up": (tokens, wide, hidden),
        "down": (tokens, hidden, wide),
        "decoder": (masked, -(-model.vocab_size // 8) * 8, hidden),
        "square 8192": (8192, 8192, 8192),
    }
    if device.type == "cpu":
        del shapes["square 8192"]
    rows = []
    for name, (m, n, k) in shapes.items():
        x, weight, grad = (torch.randn(size, dtype=dtype, device=device) for size in ((m, k), (n, k), (m, n)))
        products: dict[str, Callable[[], object]] = {
            "forward": lambda x=x, w=weight: x @ w.T,  # type: ignore[misc]
            "grad of input": lambda g=grad, w=weight: g @ w,  # type: ignore[misc]
            "grad of weight": lambda g=grad, x=x: g.T @ x,  # type: ignore[misc]
        }
        for way, product in products.items():
            seconds = seconds_per_call(product, device)
            rows.append(
                told({"what": "gemm", "name": name, "way": way, "m": m, "n": n, "k": k}, seconds, 2 * m * n * k)
            )
    return rows


def attention_rows(model: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> list[Row]:
    """Measure each usable way of attending at two lengths: BERT's pattern, ModernBERT's window, MosaicBERT's ALiBi."""
    heads = model.num_attention_heads
    size = model.hidden_size // heads
    patterns = {
        "full": FULL,
        "window 64": Pattern(window=64),
        "alibi": Pattern(slopes=alibi_slopes(heads)),
    }
    rows = []
    for longest in (128, 512):
        lengths = lengths_of(tokens, longest)
        for pattern_name, pattern in patterns.items():
            needs = Needs(dtype, heads, size, 0.0, {pattern: 1})
            machine = Machine.here(device, windows=needs.windows)
            for name, problem in candidates(needs, machine):
                about: Row = {"what": "attention", "name": name, "pattern": pattern_name, "longest": longest}
                if problem is not None:
                    rows.append({**about, "problem": problem})
                    continue
                try:
                    seconds = measured_seconds(name, needs, lengths, device)
                    error = deviation(name, pattern, heads, size, dtype, device)
                except Exception as failure:
                    rows.append({**about, "failed": f"{type(failure).__name__}: {failure}"[:300]})
                    print(json.dumps(rows[-1]), flush=True)
                    continue
                flops = 3 * 4 * sum(length**2 for length in lengths) * heads * size
                rows.append(told({**about, "error": error}, seconds, flops))
    return rows


def lengths_of(tokens: int, longest: int) -> list[int]:
    """Return lengths that add up to about `tokens`: Wikipedia's at 512, cut where they are longer than `longest`."""
    histogram = wikipedia_histogram(20_000)
    drawn = np.random.default_rng(0).permutation(np.repeat(np.arange(513), histogram)).clip(max=longest)
    return [int(length) for length in drawn[: max(1, int(np.searchsorted(drawn.cumsum(), tokens)))]]


def deviation(name: str, pattern: Pattern, heads: int, size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return how far a way of attending is off the reference in float32 on a few sequences, gradient included."""
    batch = sample_batch([128, 1, 77, 40], device)
    given = torch.randn(len(batch.input_ids), 3, heads, size, device=device).to(dtype)
    results: list[tuple[Tensor, Tensor]] = []
    for attention, cast in ((make_attention(name, fixed_rows=False), dtype), (ReferenceAttention(), torch.float32)):
        qkv = given.to(cast).requires_grad_()
        query, key, value = qkv.unbind(1)
        output = attention(query, key, value, attention.plan(batch), pattern, 0.0)
        (grad,) = torch.autograd.grad(output, qkv, torch.ones_like(output))
        results.append((output.detach(), grad))
    return max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))


def kernel_rows(model: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> list[Row]:
    """Measure the element-wise kernels, forward and backward, with dropout and without."""
    ways = [TORCH] if triton_problem(device.type, compute_capability(device)) else [TRITON, TORCH]
    hidden, wide, width = model.hidden_size, model.intermediate_size, torch.finfo(dtype).bits // 8
    # Least traffic. Norm: x, residual, gradient, sum twice, result, both gradients; GELU: x twice, result, gradients.
    passes = {"residual_norm": 8 * hidden, "bias_gelu": 5 * wide, "geglu": (3 + 5) * wide}
    rows = []
    for name in ("residual_norm", "bias_gelu", "geglu"):
        for dropout_p in (0.1, 0.0) if name == "residual_norm" else (0.0,):
            shape = Shape(tokens, hidden, wide, dropout_p, dtype, device)
            for way in ways:
                seconds = seconds_per_call(one_step(name, way, shape), device)  # type: ignore[arg-type]
                about: Row = {"what": "kernel", "name": name, "way": way, "dropout": dropout_p}
                rows.append(told(about, seconds, moved=passes[name] * tokens * width))
    return rows


def lamb_rows(model: ModelConfig, device: torch.device) -> list[Row]:
    """Measure a step of LAMB over all parameters of the model."""
    ways = ["foreach"] if triton_problem(device.type, compute_capability(device)) else ["triton", "foreach"]
    shapes = [parameter.shape for parameter in on_meta(model)]
    weights = [torch.randn(shape, device=device) * 0.02 for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    count = sum(weight.numel() for weight in weights)
    rows = []
    for way in ways:
        optimizer = Lamb(weights, lr=1e-4, implementation=way)  # type: ignore[arg-type]
        rows.append(
            told(
                {"what": "lamb", "way": way, "parameters": count},
                seconds_per_call(optimizer.step, device),
                moved=40 * count,
            )
        )
        del optimizer
    return rows


def on_meta(model: ModelConfig) -> Sequence[Tensor]:
    """Return the model's parameters without memory."""
    with torch.device("meta"):
        return list(build_model(model).parameters())


def told(about: Row, seconds: float, flops: float = 0, moved: float = 0) -> Row:
    """Print a row and return it."""
    row = {**about, "ms": round(seconds * 1e3, 4)}
    if flops:
        row["tflops"] = round(flops / seconds / 1e12, 2)
    if moved:
        row["gb_per_second"] = round(moved / seconds / 1e9, 1)
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
