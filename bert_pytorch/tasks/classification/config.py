"""Configuration of classification of a person's own texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from bert_pytorch.config.settings import Settings


class ClassificationConfig(Settings):
    """Files and columns."""

    train_file: Path | None = None
    """Texts to learn from: .csv or .tsv with a line of column names, or .jsonl; needed for --do_train."""
    val_file: Path | None = None
    """Texts to evaluate on; needed for --do_eval."""
    test_file: Path | None = None
    """Texts to predict, with labels or without; needed for --do_predict."""
    text_column: str = "text"
    """Name of the column, or of the key, that holds the text."""
    text_pair_column: str | None = None
    """Name of the one that holds a second text, where pairs are classified."""
    label_column: str = "label"
    """Name of the one that holds the label; a test file may do without."""
    problem: Literal["auto", "single_label", "multi_label", "regression"] = "auto"
    """One of several classes, any number of classes, or a number; auto: what the model was trained for, and
    single_label for a new one (multi_label where a .jsonl holds lists)."""
    label_separator: str = Field(",", min_length=1)
    """Between the classes of a text in a .csv or .tsv, with multi_label."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced weighs each example by n / (classes * examples of its class), so that rare classes count as much."""
    best_metric: Literal["accuracy", "f1", "mcc", "pearson", "spearman"] | None = None
    """What the best checkpoint is judged by; by default accuracy, f1 (multi_label) or pearson (regression)."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which a class is predicted, with multi_label."""

    def combination_problems(self) -> Iterator[str]:
        """Class weights are for single classes; the columns differ."""
        yield from super().combination_problems()
        if self.class_weights != "none" and self.problem in ("multi_label", "regression"):
            yield f"--class_weights {self.class_weights} is for --problem single_label, found {self.problem}."
        columns = [name for name in (self.text_column, self.text_pair_column, self.label_column) if name is not None]
        if len(set(columns)) < len(columns):
            found = ", ".join(columns)
            yield f"--text_column, --text_pair_column and --label_column: found {found}, wanted different ones."
