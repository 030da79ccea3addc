"""How a token's position enters attention: which keys it sees (windows), at what cost (ALiBi), or by turning (RoPE)."""
# T packed tokens, N heads, D head size, Q queries and K keys of a sequence

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bert_pytorch.runtime.device import to_device, widest_float


class Pattern(NamedTuple):
    """What a layer tells attention besides queries, keys and values; the default sees all keys alike."""

    window: int | None = None
    """A token sees those at most so far to either side; None: its whole sequence."""
    slopes: tuple[float, ...] | None = None
    """ALiBi: what each head takes off a score for each token of distance."""

    @property
    def is_full(self) -> bool:
        """Whether every key of the sequence is seen alike."""
        return self.window is None and self.slopes is None

    def mask(self, distances: Tensor, seen: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Make a mask as `scaled_dot_product_attention` takes it.

        Args:
            distances: int64 (B or 1, Q, K), between query and key.
            seen: bool, broadcastable to (B, N, Q, K), what may be seen apart from the window; None: all.
            dtype: of the scores.

        Returns:
            bool, True where seen; with slopes what is added to the scores; None where that is nothing.
        """
        distances = distances.unsqueeze(1)
        if self.window is not None:
            near = distances <= self.window
            seen = near if seen is None else seen & near
        if self.slopes is None:
            return seen
        slopes = to_device(torch.tensor(self.slopes, dtype=dtype), distances.device).view(-1, 1, 1)
        bias = -slopes * distances
        return bias if seen is None else bias.masked_fill(~seen, -torch.inf)


FULL = Pattern()


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Return ALiBi's slope of each head (Press et al. 2022, section 3).

    For a power of two, the geometric sequence from 2^(-8/N) in steps of itself; otherwise that of the next smaller
    power, then every other one of the next larger power's (the authors' code).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2.0 ** (-8 * head / (2 * power)) for head in range(1, 2 * power + 1, 2)]
    return tuple(slopes + between[: num_heads - power])


class Rotation(NamedTuple):
    """Rotary position embedding of packed tokens (Su et al. 2021, eq. 34), in halves: pair d is (d, d + D / 2)."""

    cosine: Tensor
    """(T, 1, D / 2)."""
    sine: Tensor
    """(T, 1, D / 2)."""

    @classmethod
    def at(cls, position_ids: Tensor, head_size: int, base: float, dtype: torch.dtype) -> "Rotation":
        """Compute angles m * base^(-2d/D) of positions m (T,).

        In float64, where the device has it: at position 8000 float32 is off by 5e-4.
        """
        wide, device = widest_float(position_ids.device), position_ids.device
        exponents = torch.arange(0, head_size, 2, dtype=wide, device=device) / head_size
        angles = (position_ids.unsqueeze(1) * base**-exponents).unsqueeze(1)
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def of(self, tokens: Tensor) -> "Rotation":
        """Return that of some tokens, int64 (Q,)."""
        return Rotation(self.cosine.index_select(0, tokens), self.sine.index_select(0, tokens))

    def turn(self, heads: Tensor) -> Tensor:
        """Rotate (T, N, D), in the precision of the angles."""
        first, second = heads.to(self.cosine.dtype).chunk(2, dim=2)
        turned = (first * self.cosine - second * self.sine, second * self.cosine + first * self.sine)
        return torch.cat(turned, dim=2).to(heads.dtype)
