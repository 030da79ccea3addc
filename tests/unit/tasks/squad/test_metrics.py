"""Exact match and F1 are the official ones: torchmetrics computes the same, and cases worked by hand."""

import random

import numpy as np
import pytest
from torchmetrics.functional.text import squad as their_squad

from bert_pytorch.tasks.squad.metrics import best_threshold, evaluate, evaluate_version_2, exact_match, f1, normalized
from tests.support.squad_files import article


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Cat, a dog & AN owl!", "cat dog owl"),
        ("anthem theatre", "anthem theatre"),
        ("a-the", "athe"),  # punctuation goes first
        ("A. B. C.", "b c"),
        ("«Café» — naïve", "«café» — naïve"),  # only ASCII punctuation is punctuation
        ("İ", "i\u0307"),
        ("a\u00a0\u2003b\n", "b"),
        ("the", ""),
        ("24\u201310", "24\u201310"),
        ("$1,200.50", "120050"),
    ],
)
def test_normalized_is_lower_case_without_punctuation_and_articles(text, wanted):
    assert normalized(text) == wanted


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "overlap", "overlap_2"),
    [
        ("the Denver Broncos", "Denver Broncos!", 1, 1, 1),
        ("Denver", "Denver Broncos", 0, 2 / 3, 2 / 3),
        ("Carolina", "Denver Broncos", 0, 0, 0),
        ("x x y", "x y y", 0, 2 / 3, 2 / 3),  # words count as often as they are in both
        ("x x x", "x", 0, 1 / 2, 1 / 2),
        ("", "", 1, 0, 1),
        ("the", "a", 1, 0, 1),
        ("", "x", 0, 0, 0),
        ("x", "", 0, 0, 0),
        ("Zürich, the city", "city Zürich", 0, 1, 1),
        ("東京 都", "東京", 0, 2 / 3, 2 / 3),
    ],
)
def test_cases_worked_by_hand(prediction, answer, exact, overlap, overlap_2):
    assert exact_match(prediction, answer) == exact
    assert f1(prediction, answer) == pytest.approx(overlap)
    assert f1(prediction, answer, version_2=True) == pytest.approx(overlap_2)


def near_misses(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Make predictions for real questions: right, cut, widened, misspelt, of another question, or empty."""
    choose = random.Random(seed)
    bowl = article("super_bowl_50")
    questions = [*bowl.questions, *article("notre_dame").questions]
    made = []
    for _ in range(count):
        asked = choose.choice(questions)
        answers = [answer.text for answer in asked.answers]
        words = choose.choice(answers).split()
        prediction = choose.choice(
            [
                " ".join(words),
                " ".join(words[: choose.randint(1, len(words))]),
                "the " + " ".join(words).upper() + choose.choice(["", ".", " (sic)", " and more words"]),
                " ".join(words + words[:2]),
                choose.choice(choose.choice(questions).answers).text,
                choose.choice(["", "a", "…", "é", "naïve \u2013 東京"]),
            ]
        )
        made.append((prediction, answers))
    return made


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_torchmetrics_on_a_thousand_predictions(seed):
    pairs = near_misses(1000, seed)
    theirs = their_squad(
        [{"prediction_text": prediction, "id": str(index)} for index, (prediction, _) in enumerate(pairs)],
        [
            {"answers": {"answer_start": [0] * len(texts), "text": texts}, "id": str(index)}
            for index, (_, texts) in enumerate(pairs)
        ],
    )
    ours = evaluate([prediction for prediction, _ in pairs], [texts for _, texts in pairs])
    assert ours["exact_match"] == pytest.approx(float(theirs["exact_match"]), abs=1e-4)
    assert ours["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-4)
    assert 20 < ours["exact_match"] < ours["f1"] < 80


@pytest.mark.parametrize("seed", range(2))
def test_each_single_score_is_torchmetrics(seed):
    for prediction, texts in near_misses(150, 10 + seed):
        theirs = their_squad(
            {"prediction_text": prediction, "id": "1"}, {"answers": {"answer_start": [0], "text": texts}, "id": "1"}
        )
        ours = evaluate([prediction], [texts])
        assert ours == pytest.approx({name: float(value) for name, value in theirs.items()}, abs=1e-4)


def test_version_2_scores_both_kinds_of_question():
    found = evaluate_version_2(
        ["Denver", "", "x", "", "the"],
        [["Denver Broncos", "Denver"], ["Carolina"], [], [], ["an"]],  # the last has no word, so it is no answer
    )
    assert found == {
        "exact_match": 60,
        "f1": 60,
        "total": 5,
        "HasAns_exact": 50,
        "HasAns_f1": 50,
        "HasAns_total": 2,
        "NoAns_exact": pytest.approx(200 / 3),
        "NoAns_f1": pytest.approx(200 / 3),
        "NoAns_total": 3,
    }
    assert "NoAns_total" not in evaluate_version_2(["x"], [["x"]])
    assert "HasAns_total" not in evaluate_version_2([""], [[]])


def answered_at(threshold: float, texts: list[str], odds: np.ndarray) -> list[str]:
    return ["" if odd > threshold else text for text, odd in zip(texts, odds.tolist(), strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_the_best_of_all(seed):
    choose = np.random.default_rng(seed)
    count = int(choose.integers(1, 25))
    odds = choose.normal(size=count).round(int(choose.integers(0, 3)))  # rounded: with ties
    texts = choose.choice(["x", "x y", "z"], count).tolist()
    answers = [[[], ["x"], ["x y", "y"]][kind] for kind in choose.integers(3, size=count)]
    found = evaluate_version_2(texts, answers, texts, odds)
    for name, key in (("best_exact", "exact_match"), ("best_f1", "f1")):
        every = [odds.min() - 1, *odds.tolist(), odds.max() + 1]
        scores = [evaluate_version_2(answered_at(t, texts, odds), answers)[key] for t in every]
        assert found[name] == pytest.approx(max(scores))
        at_threshold = evaluate_version_2(answered_at(found[f"{name}_thresh"], texts, odds), answers)
        assert at_threshold[key] == pytest.approx(max(scores))


def test_answering_nothing_may_be_best():
    best, threshold = best_threshold(np.zeros(3), np.array([0.5, -2.0, 1.0]), np.array([True, True, False]))
    assert (best, threshold) == (pytest.approx(200 / 3), -3.0)
