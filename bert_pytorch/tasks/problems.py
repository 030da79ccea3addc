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


def problem_of(problem_type: object) -> Problem:
    """Return the problem of a `config.json`'s `problem_type`; a model that does not say has single classes."""
    return next((problem for problem, name in PROBLEM_TYPES.items() if name == problem_type), "single_label")
