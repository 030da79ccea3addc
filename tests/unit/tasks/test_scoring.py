"""Losses as sums and counts, against torch's own means."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bert_pytorch.tasks.classification.labels import balanced_weights
from bert_pytorch.tasks.problems import problem_of
from bert_pytorch.tasks.scoring import loss_sum


def test_balanced_weights_are_scikit_learns_and_their_mean_is_torchs_weighted_loss() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    weights = balanced_weights(labels, 3)
    assert np.allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    scores = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = F.cross_entropy(scores, torch.from_numpy(labels), weight=torch.from_numpy(weights).double())
    total = loss_sum("single_label", scores, torch.from_numpy(labels), torch.from_numpy(weights))
    assert torch.allclose(total / float(weights[labels].sum()), mean, rtol=1e-6)


def test_no_sequences_give_a_loss_of_zero_with_a_gradient() -> None:
    for problem, labels in (
        ("single_label", torch.zeros(0, dtype=torch.int64)),
        ("multi_label", torch.zeros(0, 3)),
        ("regression", torch.zeros(0)),
    ):
        scores = torch.zeros(0, 1 if problem == "regression" else 3, requires_grad=True)
        loss = loss_sum(problem, scores, labels)  # type: ignore[arg-type]
        loss.backward()
        assert loss.item() == 0.0
        assert scores.grad is not None


@pytest.mark.parametrize(
    ("problem_type", "labels", "problem"),
    [
        ("regression", 1, "regression"),
        ("multi_label_classification", 3, "multi_label"),
        ("single_label_classification", 2, "single_label"),
        (None, 1, "regression"),
        (None, 3, "single_label"),
    ],
)
def test_a_model_that_does_not_say_its_problem_is_taken_as_transformers_takes_it(
    problem_type: str | None, labels: int, problem: str
) -> None:
    assert problem_of(problem_type, labels) == problem
