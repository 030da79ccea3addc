"""`habana_frameworks.torch.hpex.normalization`.

docs.habana.ai/en/latest/PyTorch/Model_Optimization_PyTorch/Custom_Ops_PyTorch.html; the formula is torch's
`clip_grad_norm_`, as the bridge's kernel has it.
"""

from collections.abc import Iterable

import torch

from tests.support.habana.calls import only_documented, record

__getattr__ = only_documented(__name__)


class FusedClipNorm:
    """Scales gradients down to an L2 norm."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], max_norm: float) -> None:
        record("FusedClipNorm")
        self.max_norm = max_norm

    @torch.no_grad()
    def clip_norm(self, parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
        """Scale, and return the norm that they had."""
        record("FusedClipNorm.clip_norm")
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
        return norm
