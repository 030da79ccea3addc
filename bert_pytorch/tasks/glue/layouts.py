"""What each GLUE task's files look like, what it is scored by, and what its submission is called."""

from typing import NamedTuple

from bert_pytorch.tasks.problems import Problem

DEV, TEST, DIAGNOSTICS = "dev", "test", "diagnostics"


class Part(NamedTuple):
    """A file of a task."""

    file: str
    """Its name in the task's folder."""
    submission: str = ""
    """Name of the submission that its predictions make."""
    suffix: str = ""
    """What its metrics' names end in."""


class Layout(NamedTuple):
    """A task."""

    folder: str
    """Its name, as GLUE spells it."""
    first: str
    """Column of the text."""
    second: str | None
    """Column of the text that goes with it."""
    label: str
    """Column of the label in train and dev."""
    labels: tuple[str, ...]
    """Names of the classes in the files; a single one for a number."""
    metrics: tuple[str, ...]
    """Official ones; the first judges checkpoints."""
    eval_parts: dict[str, Part]
    predict_parts: dict[str, Part]
    header: tuple[str, ...] | None = None
    """Columns of train and dev where these have no line of names."""

    @property
    def problem(self) -> Problem:
        """A number for STS-B, one of several classes for all others."""
        return "regression" if len(self.labels) == 1 else "single_label"

    def parts(self) -> dict[str, Part]:
        """Return all files but that of the diagnostic set."""
        return {"train": Part("train.tsv"), **self.eval_parts, **self.predict_parts}


_DEV = {DEV: Part("dev.tsv")}
_BINARY, _ENTAILMENT = ("0", "1"), ("entailment", "not_entailment")


def _test(name: str) -> dict[str, Part]:
    return {TEST: Part("test.tsv", f"{name}.tsv")}


LAYOUTS: dict[str, Layout] = {
    "cola": Layout(
        "CoLA", "sentence", None, "label", _BINARY, ("mcc",), _DEV, _test("CoLA"),
        header=("source", "label", "mark", "sentence"),
    ),
    "sst-2": Layout("SST-2", "sentence", None, "label", _BINARY, ("accuracy",), _DEV, _test("SST-2")),
    "mrpc": Layout(
        "MRPC", "#1 String", "#2 String", "Quality", _BINARY, ("f1", "accuracy"), _DEV, _test("MRPC")
    ),
    "sts-b": Layout(
        "STS-B", "sentence1", "sentence2", "score", ("score",), ("pearson", "spearman"), _DEV, _test("STS-B")
    ),
    "qqp": Layout(
        "QQP", "question1", "question2", "is_duplicate", _BINARY, ("f1", "accuracy"), _DEV, _test("QQP")
    ),
    "mnli": Layout(
        "MNLI", "sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradiction"), ("accuracy",),
        {"dev_matched": Part("dev_matched.tsv"), "dev_mismatched": Part("dev_mismatched.tsv", suffix="_mm")},
        {
            "test_matched": Part("test_matched.tsv", "MNLI-m.tsv"),
            "test_mismatched": Part("test_mismatched.tsv", "MNLI-mm.tsv", "_mm"),
        },
    ),
    "qnli": Layout("QNLI", "question", "sentence", "label", _ENTAILMENT, ("accuracy",), _DEV, _test("QNLI")),
    "rte": Layout("RTE", "sentence1", "sentence2", "label", _ENTAILMENT, ("accuracy",), _DEV, _test("RTE")),
    "wnli": Layout("WNLI", "sentence1", "sentence2", "label", _BINARY, ("accuracy",), _DEV, _test("WNLI")),
}  # fmt: skip
"""By the name on the command line, in GLUE's order."""

DIAGNOSTIC_FILES = ("diagnostic/diagnostic.tsv", "diagnostic/diagnostic-full.tsv", "AX/diagnostic.tsv", "AX/AX.tsv")
"""Where the diagnostic set is looked for beside MNLI's folder."""
DIAGNOSTIC_COLUMNS = (("sentence1", "sentence2", "label"), ("Premise", "Hypothesis", "Label"))
"""Names of its columns, without labels and with them."""


def score(task: str, results: dict[str, float]) -> float:
    """Return a task's score in the average: the mean of its official metrics over its development files."""
    layout = LAYOUTS[task]
    names = [f"{metric}{part.suffix}" for part in layout.eval_parts.values() for metric in layout.metrics]
    return sum(results[name] for name in names) / len(names)
