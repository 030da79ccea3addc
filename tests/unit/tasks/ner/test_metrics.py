"""Scores by entity against seqeval, on real files with random predictions, and by hand."""

import random

import pytest
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

from bert_pytorch.tasks.ner.conll import read_conll
from bert_pytorch.tasks.ner.metrics import score_entities
from bert_pytorch.tasks.ner.schemes import Entity, entities_of
from tests.support.data import shared_data


def scores(wanted: list[str], predicted: list[str]):
    return score_entities(*([entities_of(tags.split()) for tags in sentences] for sentences in (wanted, predicted)))


def test_scores_worked_by_hand() -> None:
    """The first is right; the second has a wrong end; the third a wrong type; the fourth is missed; one is invented."""
    found = scores(
        ["B-PER I-PER O B-LOC I-LOC O", "B-ORG O B-PER"],
        ["B-PER I-PER O B-LOC O O", "B-LOC B-PER O"],
    )
    assert found.all == (4, 4, 1)
    assert found.types == {"LOC": (1, 2, 0), "ORG": (1, 0, 0), "PER": (2, 2, 1)}
    assert found.metrics() == {
        "precision": 0.25, "recall": 0.25, "f1": 0.25, "f1_LOC": 0.0, "f1_ORG": 0.0, "f1_PER": 0.5,
    }  # fmt: skip


def test_o_counts_nowhere() -> None:
    assert scores(["O O B-PER O O O"], ["O O O O O O"]).metrics() == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "f1_PER": 0.0,
    }  # fmt: skip
    assert scores(["O O"], ["O O"]).all == (0, 0, 0)


@pytest.mark.parametrize("parts", [("conll2003", "eng.testa"), ("ncbi-disease", "devel.tsv")])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3, 1.0])
def test_real_files_score_as_in_seqeval(parts, noise: float) -> None:
    file = read_conll(shared_data("ner", *parts))
    rng, tags = random.Random(1), sorted(set(file.tags))
    noisy = [rng.choice(tags) if rng.random() < noise else tag for tag in file.tags]
    wanted, predicted = (list(map(list, file.sentences(values))) for values in (file.tags, noisy))
    ours = score_entities(*(list(map(entities_of, values)) for values in (wanted, predicted)))
    metrics = ours.metrics()
    for name, theirs in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert metrics[name] == pytest.approx(theirs(wanted, predicted), abs=1e-12)
    report = classification_report(wanted, predicted, output_dict=True)
    for kind, counts in ours.types.items():
        row = report[kind]
        assert (counts.precision, counts.recall, counts.f1, counts.wanted) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"]), abs=1e-12
        )


def test_the_table_has_a_line_for_each_type_and_one_for_all() -> None:
    lines = (
        score_entities([[Entity(0, 1, "PER")], []], [[Entity(0, 1, "PER")], [Entity(0, 2, "LOC")]]).table().splitlines()
    )
    assert [line.split() for line in lines] == [
        ["precision", "recall", "f1", "wanted", "predicted"],
        ["LOC", "0.00%", "0.00%", "0.00%", "0", "1"],
        ["PER", "100.00%", "100.00%", "100.00%", "1", "1"],
        ["all", "50.00%", "100.00%", "66.67%", "1", "2"],
    ]
