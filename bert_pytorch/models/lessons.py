"""What a teacher says of a batch, and how far a student is from it: losses of knowledge distillation.

Hinton et al. 2015 (soft targets), Sanh et al. 2019, section 3 (with the cosine of hidden states, for DistilBERT).
"""
# M masked tokens, T packed tokens, H hidden, V vocabulary, t temperature

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.records import IGNORED_LABEL


class Lesson(NamedTuple):
    """What a teacher says of one batch; without gradients."""

    temperature: float
    """t, at which predictions are compared."""
    log_probabilities: Tensor | None
    """float (M, V), log softmax(scores / t) of the masked tokens; None where no loss reads them."""
    hidden: Tensor | None
    """float (T, H), last hidden states of all tokens; None likewise."""

    def soft_target_sum(self, scores: Tensor, labels: Tensor) -> Tensor | None:
        """Sum t² KL(teacher || student) over the tokens with a label, in nats, (); None where that is not taught.

        The gradient of softened predictions falls with 1/t², which the factor undoes (Hinton et al. 2015, section 2).

        Args:
            scores: (M, V_pad), the student's; entries past V stand for no token.
            labels: int64 (M,), `IGNORED_LABEL` = counts nowhere.
        """
        if self.log_probabilities is None:
            return None
        vocab_size = self.log_probabilities.shape[1]
        with torch.autocast(scores.device.type, enabled=False):
            ours = softened(scores[:, :vocab_size], self.temperature)
            each = F.kl_div(ours, self.log_probabilities, reduction="none", log_target=True).sum(1)
            counted: Tensor = each.masked_fill(labels == IGNORED_LABEL, 0).sum()
        return self.temperature**2 * counted

    def cosine_sum(self, hidden: Tensor, real: Tensor | None) -> Tensor | None:
        """Sum 1 - cos(student, teacher) over the real tokens, (); None where that is not taught.

        Args:
            hidden: (T, H), the student's last hidden states.
            real: bool (T,), False at padding; None: there is none.
        """
        if self.hidden is None:
            return None
        with torch.autocast(hidden.device.type, enabled=False):
            each = 1 - F.cosine_similarity(_wide(hidden), _wide(self.hidden), dim=1)
            return (each if real is None else each.masked_fill(~real, 0)).sum()


def softened(scores: Tensor, temperature: float) -> Tensor:
    """Return log softmax(scores / temperature) in at least float32."""
    return F.log_softmax(_wide(scores) / temperature, dim=1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
