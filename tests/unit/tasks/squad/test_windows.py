"""Windows and spans are those of Google's definition, on real articles and on passages made to be awkward."""

import numpy as np
import pytest

from bert_pytorch.errors import ConfigError
from bert_pytorch.tasks.squad.files import Question, SquadSet, read_squad
from bert_pytorch.tasks.squad.spans import TrainingSet, targets_of, training_set, window_labels
from bert_pytorch.tasks.squad.windows import WindowConfig, is_max_context, plan_windows, tokenized, window_features
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support import google_squad
from tests.support.squad_files import ARTICLES, article, question, real_tokenizer, write_squad
from tests.support.vocabularies import small_vocabulary

SHAPES = [
    WindowConfig(),
    WindowConfig(max_seq_length=128, doc_stride=64, max_query_length=24),
    WindowConfig(max_seq_length=64, doc_stride=1000, max_query_length=7),  # more than a window holds
    WindowConfig(max_seq_length=40, doc_stride=1, max_query_length=36),  # a question may leave one token of room
]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return real_tokenizer()


@pytest.mark.parametrize("name", ARTICLES)
@pytest.mark.parametrize("config", SHAPES, ids=lambda config: f"{config.max_seq_length}-{config.doc_stride}")
def test_windows_and_spans_of_a_real_article_are_googles(tokenizer: Tokenizer, name: str, config: WindowConfig):
    assert_googles(training_set(article(name), False), tokenizer, config, every=45 if config.doc_stride == 1 else 1)


def assert_googles(learnt: TrainingSet, tokenizer: Tokenizer, config: WindowConfig, every: int = 1) -> None:
    learnt = TrainingSet(learnt.squad._replace(questions=learnt.squad.questions[::every]), learnt.places[::every])
    tokens = tokenized(learnt.squad, tokenizer)
    windows = plan_windows(tokens, config)
    sequences = np.split(
        window_features(tokens, windows, tokenizer.vocabulary).input_ids, np.cumsum(windows.sizes)[:-1]
    )
    targets = targets_of(learnt.places, tokens)
    labels = window_labels(targets, windows).tolist()
    best = np.split(is_max_context(windows), np.cumsum(windows.lengths)[:-1])
    passages = [google_squad.split_passage(tokenizer, passage) for passage in learnt.squad.passages]
    index = 0
    for number, asked in enumerate(learnt.squad.questions):
        passage, answer = passages[asked.passage], asked.answers[0]
        first, last, spelt = google_squad.answer_tokens(tokenizer, passage, answer.text, answer.start)
        ours = int(targets.firsts[number]), int(targets.lasts[number])
        if spelt:
            assert ours == (first, last), asked
        else:
            assert first <= ours[0] <= ours[1] <= last, asked
        wanted = google_squad.windows_of(
            tokenizer, asked.text, passage, config.max_seq_length, config.doc_stride, config.max_query_length
        )
        for place, window in enumerate(wanted):
            assert windows.questions[index] == number
            assert sequences[index].tolist() == window.ids
            assert tuple(labels[index]) == google_squad.label(window, *ours)
            chosen = [google_squad.is_max_context(wanted, place, window.start + i) for i in range(window.length)]
            assert best[index].tolist() == chosen
            index += 1
    assert index == len(windows.questions)


def test_most_real_answers_are_tightened_to_what_spells_them(tokenizer: Tokenizer):
    learnt = training_set(article("super_bowl_50"), False)
    tokens = tokenized(learnt.squad, tokenizer)
    targets = targets_of(learnt.places, tokens)
    flat = tokenizer.encode_flat([asked.answers[0].text for asked in learnt.squad.questions])
    equal = 0
    for number, asked in enumerate(learnt.squad.questions):
        begin = tokens.passages.offsets[asked.passage]
        span = tokens.passages.ids[begin + targets.firsts[number] : begin + targets.lasts[number] + 1]
        equal += span.tolist() == flat.ids[flat.offsets[number] : flat.offsets[number + 1]].tolist()
    assert equal == 794  # of 810: the others cut a word, as "8" of "18", by their annotators' mistake


@pytest.mark.parametrize(
    ("passage", "answer", "pieces"),
    [
        ("led by John Smith (1895-1943).", "1895", ["1895"]),  # Google's example
        ("many Japanese electronics", "Japan", ["japanese"]),  # and the one it cannot tighten
        ("Rene\u0301 and Zoe\u0301, here", "Zoe\u0301", ["zoe"]),
        ("at the Café's door", "Café", ["cafe"]),
        ("in 東京都 today", "京", ["京"]),
        ("x  Super\n\tBowl  y", "Super Bowl", ["super", "bowl"]),
        ("the end.", "end.", ["end", "."]),
        ("a \u00a0 b", "b", ["b"]),
    ],
)
def test_an_answer_is_the_fewest_tokens_that_hold_it(tokenizer, tmp_path, passage, answer, pieces):
    start = passage.find(answer.split()[0])
    path = write_squad(tmp_path / "f.json", (passage, [question("a", "?", (answer, start))]))
    learnt = training_set(read_squad([path]), False)
    tokens = tokenized(learnt.squad, tokenizer)
    targets = targets_of(learnt.places, tokens)
    span = tokens.passages.ids[targets.firsts[0] : targets.lasts[0] + 1]
    assert [tokenizer.vocabulary.tokens[index] for index in span] == pieces


def test_awkward_lengths_are_cut_as_google_cuts_them():
    tokenizer = Tokenizer(small_vocabulary())
    passages = tuple(
        " ".join("abcdefghij"[i % 10] for i in range(count)) for count in (0, 1, 9, 10, 11, 12, 13, 30, 31)
    )
    asked = [Question(f"{p} {q}", " ".join("z" * q), p, ()) for p in range(len(passages)) for q in (0, 1, 5, 9)]
    squad = SquadSet("here", passages, tuple(asked))
    for stride in (1, 2, 5, 7, 50):
        for length in (9, 12, 15):
            config = WindowConfig(max_seq_length=length, doc_stride=stride, max_query_length=5)
            tokens = tokenized(squad, tokenizer)
            windows = plan_windows(tokens, config)
            sequences = np.split(
                window_features(tokens, windows, tokenizer.vocabulary).input_ids, np.cumsum(windows.sizes)[:-1]
            )
            wanted = [
                window
                for one in asked
                for window in google_squad.windows_of(
                    tokenizer,
                    one.text,
                    google_squad.split_passage(tokenizer, passages[one.passage]),
                    length,
                    stride,
                    5,
                )
            ]
            assert [s.tolist() for s in sequences] == [w.ids for w in wanted]
            assert np.bincount(windows.questions).min() == 1  # a passage without a token has a window too


@pytest.mark.parametrize("length", [60, 67])
def test_a_question_that_could_fill_the_window_is_refused(length: int):
    with pytest.raises(ConfigError) as error:
        WindowConfig(max_seq_length=length, max_query_length=64).checked("here")
    assert f"give at most --max_query_length {length - 4}" in str(error.value)
    assert list(WindowConfig(max_seq_length=68, max_query_length=64).combination_problems()) == []
