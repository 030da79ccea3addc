"""GLUE's files in its official layouts, small: column names and their order as in the files of gluebenchmark.com."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.finetuning import random_texts

PARSES = ("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse")
SIMPLE = {
    "SST-2": (("sentence", "label"), ("index", "sentence"), ("0", "1")),
    "MRPC": (
        ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        ("0", "1"),
    ),
    "STS-B": (
        ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"),
        ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"),
        None,
    ),
    "QQP": (
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        ("id", "question1", "question2"),
        ("0", "1"),
    ),
    "QNLI": (
        ("index", "question", "sentence", "label"),
        ("index", "question", "sentence"),
        ("entailment", "not_entailment"),
    ),
    "RTE": (
        ("index", "sentence1", "sentence2", "label"),
        ("index", "sentence1", "sentence2"),
        ("entailment", "not_entailment"),
    ),
    "WNLI": (("index", "sentence1", "sentence2", "label"), ("index", "sentence1", "sentence2"), ("0", "1")),
}
"""Columns of train and dev, columns of test, labels (None: numbers from 0 to 5)."""
MNLI_TRAIN = ("index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2", "label1", "gold_label")
MNLI_DEV = (*MNLI_TRAIN[:10], "label1", "label2", "label3", "label4", "label5", "gold_label")
MNLI_TEST = MNLI_TRAIN[:10]
INFERENCE = ("entailment", "neutral", "contradiction")


def write_glue(folder: Path, count: int = 24) -> Path:
    """Write all nine tasks and the diagnostic set with labels."""
    cola = folder / "CoLA"
    cola.mkdir(parents=True)
    for number, name in enumerate(("train", "dev")):
        rows = [f"gj04\t{index % 2}\t{'*' if index % 2 else ''}\t{text}" for index, text in texts(count, number)]
        (cola / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    rows = [f"{index}\t{text}" for index, text in texts(count, 2)]
    (cola / "test.tsv").write_text("\n".join(["index\tsentence", *rows]) + "\n")
    for name, (labelled, unlabelled, labels) in SIMPLE.items():
        rng = random.Random(name)

        def label(labels: Sequence[str] | None = labels, rng: random.Random = rng) -> str:
            return f"{5 * rng.random():.3f}" if labels is None else rng.choice(labels)

        for seed, part in enumerate(("train", "dev", "test")):
            write(folder / name / f"{part}.tsv", unlabelled if part == "test" else labelled, count, seed, label)
    columns = {"train": MNLI_TRAIN, **dict.fromkeys(("dev_matched", "dev_mismatched"), MNLI_DEV)}
    columns |= dict.fromkeys(("test_matched", "test_mismatched"), MNLI_TEST)
    rng = random.Random(9)
    for seed, (part, names) in enumerate(columns.items()):
        write(folder / "MNLI" / f"{part}.tsv", names, count, seed, lambda: rng.choice(INFERENCE))
    full = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Domain", "Premise",
            "Hypothesis", "Label")  # fmt: skip
    write(folder / "diagnostic" / "diagnostic-full.tsv", full, count, 7, lambda: rng.choice(INFERENCE))
    return folder


def texts(count: int, seed: int) -> list[tuple[int, str]]:
    """Return numbered texts; some have a quotation mark that is never closed, as GLUE's have."""
    return [(index, f'"{text}' if index % 5 == 0 else text) for index, text in enumerate(random_texts(count, seed))]


def write(path: Path, columns: Sequence[str], count: int, seed: int, label: Callable[[], str]) -> None:
    """Write a file with a line of names; texts into columns of texts, a label into the label's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = zip(texts(count, seed), random_texts(count, seed + 100), strict=True)
    lines = ["\t".join(columns)]
    for (index, first), second in pairs:
        known = {"index": str(index), "id": str(index), "sentence": first if "question" not in columns else second}
        known |= dict.fromkeys(("sentence1", "#1 String", "question1", "question", "Premise"), first)
        known |= dict.fromkeys(("sentence2", "#2 String", "question2", "Hypothesis"), second)
        known |= dict.fromkeys(("label", "Quality", "score", "is_duplicate", "gold_label", "Label"), label())
        lines.append("\t".join(known.get(name, "x") for name in columns))
    path.write_text("\n".join(lines) + "\n")
