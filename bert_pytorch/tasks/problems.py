"""What may be asked about a whole sequence."""

from typing import Literal

Problem = Literal["single_label", "multi_label", "regression"]
"""One of several classes, any number of classes, or a number."""

PROBLEM_TYPES: dict[Problem, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""Names of `problem_type` in Hugging Face's `config.json`."""


def problem_of(problem_type: object, num_labels: int) -> Problem:
    """Return the problem of a `config.json`'s `problem_type`.

    A model that does not say has single classes, or with one label a number, as in `transformers`.
    """
    otherwise: Problem = "regression" if num_labels == 1 else "single_label"
    return next((problem for problem, name in PROBLEM_TYPES.items() if name == problem_type), otherwise)
