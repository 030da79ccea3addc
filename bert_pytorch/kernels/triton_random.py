"""Dropout masks that are computed again in the backward pass instead of being kept."""

import torch
import triton
import triton.language as tl
from torch import Tensor

STEPS = 65536
"""Probabilities are whole multiples of 1 / STEPS: each entry takes 16 of the 128 bits that one Philox call gives."""


def dropout_threshold(dropout_p: float) -> int:
    """Return how many of the 65,536 values of an entry's 16 bits drop it."""
    return min(round(dropout_p * STEPS), STEPS - 1)


def draw_seed(device: torch.device) -> Tensor:
    """Draw int64 (1,) from torch's generator of `device`, on the device: nothing waits, a CUDA graph may record it."""
    return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)


@triton.jit
def kept_entries(seed, row, threshold, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Say for the tile (ROWS, COLUMNS) of a matrix which entries dropout keeps.

    Philox4x32 of 7 rounds, the fewest that pass BigCrush (Salmon et al. 2011, table 2).  Eight neighbours share a call:
    one call an entry would cost a fifth of BERT-large's step on an H100 (48 dropouts of 1,024 entries a token, twice).

    Args:
        seed: int64 scalar.
        row: int32 (ROWS,), the rows of the matrix that the tile holds.
        threshold: of `dropout_threshold`.
        ROWS: of the tile.
        COLUMNS: of the tile and of the matrix, both rounded up to one power of 2, at least 8.
    """
    group = tl.arange(0, COLUMNS // 8)
    a, b, c, d = tl.randint4x(seed, row[:, None] * (COLUMNS // 8) + group[None, :], 7)
    words = tl.join(tl.join(a, b), tl.join(c, d)).to(tl.uint32, bitcast=True)  # (ROWS, COLUMNS / 8, 2, 2)
    halves = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(halves, (ROWS, COLUMNS)) >= threshold
