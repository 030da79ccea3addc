"""Answers from every kind of source are those that run_squad.py's task gives, and are told where they stand."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.task_models import export_task_model, load_task_model
from bert_pytorch.tasks.squad.config import UseConfig, exported_settings, settings_of
from tests.support.finetuning import small_task_model
from tests.support.squad_files import letters, squad_here

SHAPE = {"max_seq_length": 20, "doc_stride": 6, "max_query_length": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that was used in short windows, and for passages without an answer."""
    path = tmp_path_factory.mktemp("model")
    config = UseConfig(**SHAPE, version_2_with_negative=True, max_answer_length=5, null_score_diff_threshold=-1.3)
    return small_task_model(path, "question_answering", (), **exported_settings(config))


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def asked(path: Path) -> list[tuple[str, str, str]]:
    """Return passage, question and name of each question of a file."""
    paragraphs = json.loads(path.read_text())["data"][0]["paragraphs"]
    return [(p["context"], q["question"], q["id"]) for p in paragraphs for q in p["qas"]]


def test_answers_are_those_of_run_squad(folder: Path, tmp_path: Path, run) -> None:
    path = letters(tmp_path / "dev.json", 8, negative=True)
    outcome = squad_here(
        init_checkpoint=folder, do_predict=True, predict_file=path, output_dir=tmp_path / "run", **SHAPE,
        version_2_with_negative=True, max_answer_length=5, null_score_diff_threshold=-1.3, n_best_size=20,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    predicted, n_best, odds = (
        json.loads((tmp_path / "run" / name).read_text())
        for name in ("predictions.json", "nbest_predictions.json", "null_odds.json")
    )
    assert "" in predicted.values()
    assert len(set(predicted.values())) > 3
    outcome = run("answer", "--checkpoint", folder, "--input_file", path, "--n_best_size", 20)
    assert outcome.code == 0, outcome.err
    found = lines(outcome.out)
    assert [(record["id"], record["question"]) for record in found] == [(name, text) for _, text, name in asked(path)]
    for record, (passage, _, name) in zip(found, asked(path), strict=True):
        assert record["answer"] == predicted[name]
        assert record["null_odds"] == pytest.approx(odds[name], abs=1e-4)
        assert [c["text"] for c in record["candidates"]] == [c["text"] for c in n_best[name]][:20]
        chances = {c["text"]: c["probability"] for c in n_best[name]}
        assert record["probability"] == pytest.approx(chances[record["answer"]], abs=1e-4)
        if record["answer"]:
            assert passage[record["start"] : record["end"]] == record["answer"]
        else:
            assert (record["start"], record["end"]) == (None, None)


def test_every_source_gives_the_same_answers(folder: Path, tmp_path: Path, run) -> None:
    passage, questions = "the king of rome is paris . a b c d e f g h", ["a", "z b", "paris"]
    flags = ["answer", "--checkpoint", folder, "--no-version_2_with_negative"]
    (tmp_path / "passage.txt").write_text(passage)
    (tmp_path / "questions.txt").write_text("\n".join(questions) + "\n")
    pairs = "".join(json.dumps({"question": question, "context": passage}) + "\n" for question in questions)
    (tmp_path / "pairs.jsonl").write_text(pairs)
    about = ["--context", passage]
    outcomes = [
        run(*flags, *about, *questions),
        run(*flags, "--context_file", tmp_path / "passage.txt", *questions),
        run(*flags, *about, "--input_file", tmp_path / "questions.txt"),
        run(*flags, *about, stdin="\n".join(questions)),
        run(*flags, "--input_file", tmp_path / "pairs.jsonl"),
        run(*flags, "--input_file", tmp_path / "pairs.jsonl", "--max_tokens", 1),
        run(*flags, stdin=pairs),
        run(*flags, *about, stdin="\n\n".join(questions) + "\n", typed=True),
        run(*flags, stdin="\n".join([passage, *questions]) + "\n", typed=True),
        run(*flags, stdin="\n".join(["x", "", passage, questions[0], "", "", passage, *questions[1:]]), typed=True),
    ]
    assert [outcome.err for outcome in outcomes if outcome.code] == []
    wanted = lines(outcomes[0].out)
    assert [record["question"] for record in wanted] == questions
    assert all(passage[record["start"] : record["end"]] == record["answer"] != "" for record in wanted)
    assert list(wanted[0]) == ["question", "answer", "start", "end", "probability"]
    for outcome in outcomes[1:]:
        for record, other in zip(lines(outcome.out), wanted, strict=True):
            assert record == {**other, "probability": pytest.approx(other["probability"], abs=1e-5)}


def test_options_come_before_what_the_model_says(folder: Path, run) -> None:
    flags = ["answer", "--checkpoint", folder, "--context", "a b c d e f g h", "a"]
    assert lines(run(*flags, "--null_score_diff_threshold", -1000).out)[0]["answer"] == ""
    assert len(lines(run(*flags, "--null_score_diff_threshold", 1000).out)[0]["answer"].split()) <= 5
    one = lines(run(*flags, "--no-version_2_with_negative", "--max_answer_length", 1).out)[0]
    assert len(one["answer"]) == 1
    assert "null_odds" not in one


def test_a_model_of_others_is_used_as_far_as_it_has_positions(tmp_path: Path, run) -> None:
    small_task_model(tmp_path, "question_answering", ())
    passage = " ".join("abcdefghij" * 9)
    (record,) = lines(run("answer", "--checkpoint", tmp_path, "--context", passage, "a").out)
    assert passage[record["start"] : record["end"]] == record["answer"]
    settings = settings_of({}, 512, "here")
    assert (settings.max_seq_length, settings.doc_stride, settings.max_query_length) == (384, 128, 64)


def test_text_that_utf_8_cannot_hold_is_answered(folder: Path, run) -> None:
    outcome = run("answer", "--checkpoint", folder, stdin='{"question": "a\\ud800", "context": "b \\udc00", "id": 5}')
    assert outcome.code == 0, outcome.err
    assert lines(outcome.out)[0]["id"] == "5"


@pytest.mark.parametrize(
    ("words", "stdin", "told"),
    [
        (["a"], "", "--context is missing"),
        (["--context", "b", "--context_file", "c"], "", "keep one of them"),
        (["--question", "a"], "", "type the question itself, in quotes"),
        ([], "a\n", "standard input, line 1: it is not JSON"),
        ([], '{"question": "a"}\n', 'wanted an object such as {"question": "…", "context": "…"}'),
        ([], '{"question": "a", "context": "b", "id": [1]}\n', "line 1: found"),
        ([], "", "standard input is empty"),
        (["--input_file", "{}/vocab.txt"], "", "wants a passage: --context_file"),
        (["--input_file", "{}/config.json"], "", "wanted SQuAD's layout"),
        (["--context_file", "{}/model.safetensors", "a"], "", "it is not UTF-8 text"),
    ],
)
def test_a_wrong_call_is_told_in_one_message(folder: Path, run, words, stdin, told) -> None:
    words = [word.replace("{}", str(folder)) for word in words]
    outcome = run("answer", "--checkpoint", folder, *words, stdin=stdin)
    assert outcome.code in (1, 2)
    assert outcome.err.count("error:") == 1
    assert told in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1], "wanted keys with values"),
        ({"doc_stride": 0}, '"doc_stride": found 0'),
        ({"strides": 1}, "wanted a known key"),
        ({"max_seq_length": 10, "max_query_length": 9}, "leaves nothing of"),
        ({"max_seq_length": 41, "max_query_length": 9}, "the model has 40 positions"),
    ],
)
def test_a_config_that_says_what_cannot_be_is_refused(tmp_path: Path, values, told) -> None:
    loaded = load_task_model(small_task_model(tmp_path, "question_answering", ()))
    export_task_model(tmp_path, loaded.model, loaded.vocabulary, (), {"question_answering": values})
    loaded = load_task_model(tmp_path)
    with pytest.raises(ConfigError) as error:
        settings_of(loaded.exported, loaded.model.config.max_position_embeddings, "config.json")
    assert told in str(error.value)
