"""From which length on is torch's fused CPU attention faster than plain products on each sequence?

    OMP_NUM_THREADS=1 python -m benchmarks.attention [--heads 4] [--lengths 32 64 92 128 192 254 384 512] [--rounds 7]

Both attend within sequences of about one length, together 3,000 tokens, of queries, keys and values that are views of
one tensor as in training: forward and backward, in turns.  `kernels.cpu_attention.LONGEST` is read off this table.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.kernels.cpu import references_only
from bert_pytorch.kernels.cpu_attention import LONGEST, short_attention
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.patterns import FULL
from bert_pytorch.models.sequence_attention import SequenceWiseSdpa

TOKENS, HEAD_SIZE = 3000, 64


def batch_of(lengths: list[int]) -> PackedBatch:
    """Make a batch of which attention reads the lengths alone."""
    none = torch.zeros(0, dtype=torch.int64)
    edges = torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32))
    return PackedBatch(none, none, none, edges, none, none, None, tuple(lengths))


def seconds_of(attend: Callable[[Tensor], Tensor], qkv: Tensor, grad: Tensor) -> float:
    """Time one forward and backward pass, in processor time of this process."""
    started = time.process_time()
    attend(qkv).backward(grad)
    return time.process_time() - started


def compare(length: int, heads: int, rounds: int) -> dict[str, float]:
    """Measure both in turns on sequences of about `length` tokens; returns medians in ms and their ratio's."""
    generator = np.random.default_rng(length)
    lengths = generator.integers(max(1, length * 3 // 4), length * 5 // 4 + 1, max(1, TOKENS // length)).tolist()
    qkv = torch.randn(sum(lengths), 3, heads, HEAD_SIZE, requires_grad=True)
    grad = torch.randn(sum(lengths), heads * HEAD_SIZE)
    sdpa, batch = SequenceWiseSdpa(), batch_of(lengths)
    plan = sdpa.plan(batch)

    def fused(qkv: Tensor) -> Tensor:
        with references_only():
            return sdpa(*qkv.unbind(1), plan, FULL, 0.0)

    def products(qkv: Tensor) -> Tensor:
        return short_attention(*qkv.unbind(1), lengths, lengths)

    found: dict[str, list[float]] = {"fused": [], "products": []}
    for turn in range(rounds + 1):
        times = {"fused": seconds_of(fused, qkv, grad), "products": seconds_of(products, qkv, grad)}
        if turn:  # the first warms up
            for name, seconds in times.items():
                found[name].append(seconds)
    ratios = [one / other for one, other in zip(found["fused"], found["products"], strict=True)]
    medians = {f"{name}_ms": round(1e3 * statistics.median(values), 2) for name, values in found.items()}
    return {"length": length, **medians, "fused/products": round(statistics.median(ratios), 2)}


def main() -> None:
    """Print a row for each length, then one JSON line."""
    parser = argparse.ArgumentParser(description="Two ways of attending on a CPU, by length.")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 92, 128, 192, 254, 384, 512])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = [compare(length, options.heads, options.rounds) for length in options.lengths]
    for row in rows:
        print(
            f"{row['length']:4} tokens: fused {row['fused_ms']:7.2f} ms, products {row['products_ms']:7.2f} ms, "
            f"ratio {row['fused/products']:.2f}"
        )
    about = {"benchmark": "attention", "heads": options.heads, "threads": torch.get_num_threads(), "longest": LONGEST}
    print(json.dumps({**about, "measured": rows}))


if __name__ == "__main__":
    main()
