"""The numbers of the method, whoever computes it."""

from typing import NamedTuple

from bert_pytorch.optim.kfac.stepwise import Stepwise


class Method(NamedTuple):
    """What the flags say; values by update."""

    damping: Stepwise
    """λ."""
    factored_damping: bool
    relative_damping: bool
    kl_clip: float
    """κ; 0 for none."""
    stat_decay: float
    """Of the running averages at each of their updates."""
    factor_interval: Stepwise
    """Updates from one that is watched to the next."""
    inv_interval: Stepwise
    """Updates from one decomposition to the next."""
    max_rows: int | None = None
    """Rows of a layer's call that statistics take; None: all."""
