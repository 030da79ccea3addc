"""Answers are those that Google's definition chooses, given back as the passage has them."""

import json
import math

import numpy as np
import pytest

from bert_pytorch.tasks.squad.answers import AnswerConfig, Prediction, predict, write_predictions
from bert_pytorch.tasks.squad.files import Question, SquadSet
from bert_pytorch.tasks.squad.metrics import evaluate
from bert_pytorch.tasks.squad.spans import targets_of, training_set, window_labels
from bert_pytorch.tasks.squad.windows import WindowConfig, Windows, plan_windows, tokenized
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support import google_squad
from tests.support.squad_files import article, real_tokenizer
from tests.support.vocabularies import small_vocabulary

SMALL = Tokenizer(small_vocabulary())


@pytest.fixture
def tokenizer() -> Tokenizer:
    return real_tokenizer()


@pytest.mark.parametrize("version_2", [False, True])
@pytest.mark.parametrize(("n_best", "longest"), [(20, 30), (3, 4), (1, 1)])
def test_candidates_and_their_order_are_googles(tokenizer, version_2, n_best, longest):
    squad = article("super_bowl_50")
    squad = squad._replace(questions=squad.questions[::8])
    shape = WindowConfig(max_seq_length=64, doc_stride=20, max_query_length=16)
    config = AnswerConfig(n_best_size=n_best, max_answer_length=longest, version_2_with_negative=version_2)
    tokens = tokenized(squad, tokenizer)
    windows = plan_windows(tokens, shape)
    random = np.random.default_rng(0)
    scores = [random.normal(size=(size, 2)).round(1) for size in windows.sizes]  # rounded: with ties
    found = predict(tokens, windows, squad.passages, scores, config)
    index = 0
    for asked, prediction in zip(squad.questions, found, strict=True):
        passage = google_squad.split_passage(tokenizer, squad.passages[asked.passage])
        its = google_squad.windows_of(tokenizer, asked.text, passage, 64, 20, 16)
        logits = [list(map(tuple, given.tolist())) for given in scores[index : index + len(its)]]
        ranking = google_squad.rank(its, logits, n_best, longest)
        places = tokens.passages.offsets[asked.passage]

        def text_of(span, asked=asked, places=places):
            start, end = tokens.passages.starts[places + span.first], tokens.passages.ends[places + span.last]
            return "" if span.first < 0 else squad.passages[asked.passage][start:end]

        spans = sorted(
            [*ranking.spans, ranking.null] if version_2 else ranking.spans,
            key=lambda span: -(span.start_logit + span.end_logit),
        )
        wanted: dict[str, tuple[float, float]] = {}
        for span in spans:
            if len(wanted) < n_best:
                wanted.setdefault(text_of(span), (span.start_logit, span.end_logit))
        if version_2:
            wanted.setdefault("", (ranking.null.start_logit, ranking.null.end_logit))
            rival = ranking.spans[0].start_logit + ranking.spans[0].end_logit if ranking.spans else 0.0
            assert prediction.null_odds == pytest.approx(ranking.null.start_logit + ranking.null.end_logit - rival)
        wanted = wanted or {"empty": (0.0, 0.0)}
        assert {c.text: (c.start_logit, c.end_logit) for c in prediction.candidates} == wanted
        assert [c.text for c in prediction.candidates] == list(wanted)
        weights = [math.exp(sum(pair)) for pair in wanted.values()]
        assert [c.probability for c in prediction.candidates] == pytest.approx([w / sum(weights) for w in weights])
        assert prediction.best == (text_of(ranking.spans[0]) if ranking.spans else "")
        index += len(its)


def test_a_model_that_is_always_right_scores_full_marks(tokenizer):
    learnt = training_set(article("super_bowl_50"), False)
    tokens = tokenized(learnt.squad, tokenizer)
    windows = plan_windows(tokens, WindowConfig(max_seq_length=128, doc_stride=64, max_query_length=32))
    labels = window_labels(targets_of(learnt.places, tokens), windows)
    scores = [np.zeros((size, 2)) for size in windows.sizes]
    for given, label in zip(scores, labels, strict=True):
        given[label, [0, 1]] = 9.0
    found = predict(tokens, windows, learnt.squad.passages, scores, AnswerConfig())
    answers = [question.answers[0].text for question in learnt.squad.questions]
    same = sum(prediction.best == answer for prediction, answer in zip(found, answers, strict=True))
    assert same >= 790  # of 810, letter by letter; 16 answers are no whole tokens
    assert evaluate([prediction.best for prediction in found], [[text] for text in answers])["exact_match"] > 97


def asked(*passages: str, room: int = 4) -> tuple[SquadSet, WindowConfig]:
    """Return a question of one token about each passage, and windows with room for a few tokens."""
    questions = tuple(Question(str(number), "z", number, ()) for number in range(len(passages)))
    return SquadSet("here", passages, questions), WindowConfig(
        max_seq_length=room + 4, doc_stride=2, max_query_length=1
    )


def chosen(squad: SquadSet, shape: WindowConfig, config: AnswerConfig, peaks: dict) -> list[Prediction]:
    """Predict from logits of 0 but for `peaks`: (window, place, 0 for start or 1 for end) to its logit."""
    tokens = tokenized(squad, SMALL)
    windows: Windows = plan_windows(tokens, shape)
    scores = [np.zeros((size, 2), np.float32) for size in windows.sizes]
    for (window, place, column), value in peaks.items():
        scores[window][place, column] = value
    return predict(tokens, windows, squad.passages, scores, config)


VERSION_2 = AnswerConfig(version_2_with_negative=True)


def test_no_answer_scores_what_its_least_window_says():
    squad, shape = asked("a b c d e f")  # windows: a b c d, c d e f; the passage begins at place 3
    peaks = {(0, 0, 0): 5.0, (0, 0, 1): 4.0, (1, 0, 0): 1.0, (1, 0, 1): 2.0, (1, 4, 0): 1.5, (1, 5, 1): 1.0}
    (found,) = chosen(squad, shape, VERSION_2, peaks)
    assert found.best == "d e"
    assert found.null_odds == pytest.approx(3.0 - 2.5)
    (null,) = [candidate for candidate in found.candidates if not candidate.text]
    assert (null.start_logit, null.end_logit) == (1.0, 2.0)


def test_each_question_has_a_null_score_of_its_own():
    squad, shape = asked("a b", "c d")
    found = chosen(squad, shape, VERSION_2, {(0, 0, 0): 7.0, (1, 0, 0): -3.0})
    assert [prediction.null_odds for prediction in found] == [7.0, -3.0]
    assert [prediction.text(VERSION_2) for prediction in found] == ["", "c"]
    nulls = [c.start_logit for prediction in found for c in prediction.candidates if not c.text]
    assert nulls == [7.0, -3.0]


def test_the_threshold_decides_between_none_and_the_best_text():
    squad, shape = asked("a b")
    (found,) = chosen(squad, shape, VERSION_2, {(0, 0, 0): 2.0})
    for threshold, text in ((1.9, ""), (2.0, "a"), (2.1, "a"), (-5.0, "")):
        config = VERSION_2.model_copy(update={"null_score_diff_threshold": threshold})
        assert found.text(config) == text


def test_a_start_counts_in_the_window_with_most_context():
    squad, shape = asked("a b c d e f")
    (found,) = chosen(squad, shape, AnswerConfig(), {(0, 6, 0): 9.0, (1, 4, 0): 1.0, (1, 4, 1): 1.0})
    assert found.best == "d"  # whose score in the first window, where nothing follows it, is not used
    assert (found.candidates[0].start_logit, found.candidates[0].end_logit) == (1.0, 1.0)


def test_question_and_special_tokens_are_no_answers():
    squad, shape = asked("a b")
    peaks = {(0, place, column): 9.0 for place in (0, 1, 2, 5) for column in (0, 1)}
    (found,) = chosen(squad, shape, AnswerConfig(), peaks | {(0, 4, 0): 1.0, (0, 4, 1): 1.0})
    assert found.best == "b"
    (found,) = chosen(squad, shape, AnswerConfig(n_best_size=4), peaks)
    assert found.best == ""
    assert found.text(AnswerConfig()) == "empty"


def test_a_passage_without_a_token_has_no_answer():
    squad, shape = asked("", " \n", "a")
    assert [p.text(AnswerConfig()) for p in chosen(squad, shape, AnswerConfig(), {})] == ["empty", "empty", "a"]
    found = chosen(squad, shape, VERSION_2, {(0, 0, 0): -8.0, (2, 3, 0): 1.0})
    assert [p.text(VERSION_2) for p in found] == ["", "", "a"]
    assert [[c.text for c in p.candidates] for p in found[:2]] == [[""], [""]]


def test_the_official_files_have_their_layout(tmp_path):
    squad, shape = asked("a b", "c d")
    found = chosen(squad, shape, VERSION_2, {(0, 0, 0): 7.0})
    write_predictions(tmp_path, ["é1", "2"], found, VERSION_2)
    assert json.loads((tmp_path / "predictions.json").read_text("utf-8")) == {"é1": "", "2": "c"}
    n_best = json.loads((tmp_path / "nbest_predictions.json").read_text("utf-8"))
    assert n_best["é1"][0] == {
        "text": "",
        "probability": n_best["é1"][0]["probability"],
        "start_logit": 7,
        "end_logit": 0,
    }
    assert sum(candidate["probability"] for candidate in n_best["é1"]) == pytest.approx(1)
    assert json.loads((tmp_path / "null_odds.json").read_text("utf-8")) == {"é1": 7.0, "2": 0.0}
    (tmp_path / "null_odds.json").unlink()
    write_predictions(tmp_path, ["é1", "2"], found, AnswerConfig())
    assert not (tmp_path / "null_odds.json").exists()
