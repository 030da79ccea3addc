"""run_squad.py from files to official predictions and scores: learnt, resumed from its model, on two ranks, refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bert_pytorch.interop.sources import load_source
from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.tasks.squad.files import read_squad
from bert_pytorch.tasks.squad.metrics import evaluate_version_2
from tests.support.data import real_encoder, shared_data
from tests.support.finetuning import small_encoder, small_task_model
from tests.support.runs import metrics, run_program
from tests.support.squad_files import letters, question, squad_command, squad_here, write_squad

OFFICIAL = ("predictions.json", "nbest_predictions.json", "null_odds.json")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder") / "model")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_version_2_is_learnt_and_its_model_answers_alone(encoder: Path, tmp_path: Path) -> None:
    held_out = letters(tmp_path / "dev.json", 40, seed=1, negative=True, longest=9)
    shape = {"max_seq_length": 16, "doc_stride": 4, "max_query_length": 4, "version_2_with_negative": True}
    run = tmp_path / "run"
    outcome = squad_here(
        init_checkpoint=encoder, do_train=True, do_eval=True, do_predict=True, output_dir=run, **shape,
        train_file=letters(tmp_path / "train.json", 2000, negative=True, longest=9), predict_file=held_out,
        train_batch_size=64, max_steps=250, learning_rate=3e-3, eval_interval=1000, log_interval=50,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    results = read(run / "eval_results.json")
    assert results["HasAns_total"] == results["NoAns_total"] == 40
    assert results["f1"] > 85  # measured: 96.9 after 300 updates
    assert results["NoAns_exact"] > 90
    assert results["best_exact"] >= results["exact_match"]

    predictions, odds = (read(run / name) for name in ("predictions.json", "null_odds.json"))
    questions = read_squad([held_out]).questions
    assert list(predictions) == list(odds) == [asked.id for asked in questions]
    answers = [[answer.text for answer in asked.answers] for asked in questions]
    again = evaluate_version_2(list(predictions.values()), answers)
    assert again == {name: results[name] for name in again}

    alone = tmp_path / "alone"
    outcome = squad_here(init_checkpoint=run, do_predict=True, predict_file=held_out, output_dir=alone, **shape)
    assert outcome.code == 0, outcome.err
    for name in ("predictions.json", "nbest_predictions.json"):
        assert read(alone / name).keys() == read(run / name).keys()
    assert read(alone / "predictions.json") == predictions
    assert "the model was trained with" not in outcome.err
    strict = squad_here(
        init_checkpoint=run, do_eval=True, do_predict=True, predict_file=held_out, output_dir=alone, **shape,
        null_score_diff_threshold=-1000,
    )  # fmt: skip
    assert strict.code == 0, strict.err
    assert set(read(alone / "predictions.json").values()) == {""}
    shape["version_2_with_negative"] = False
    outcome = squad_here(
        init_checkpoint=run, do_predict=True, predict_file=held_out, output_dir=tmp_path / "1", **shape
    )
    assert "" not in read(tmp_path / "1" / "predictions.json").values()
    assert "--version_2_with_negative is False; the model was trained with True" in outcome.err
    assert read(alone / "eval_results.json")["exact_match"] == 50


def test_two_ranks_predict_what_one_does_and_are_timed(tmp_path: Path) -> None:
    model = small_task_model(tmp_path / "model", "question_answering", ())
    flags = {
        "init_checkpoint": model, "do_predict": True, "do_eval": True, "max_seq_length": 20, "doc_stride": 6,
        "max_query_length": 4, "version_2_with_negative": True, "predict_batch_size": 4, "benchmark_batches": 5,
        "predict_file": letters(tmp_path / "dev.json", 9, negative=True), "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    assert squad_here(**flags, output_dir=tmp_path / "one").code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    outcome = run_program([*launcher, *squad_command(**flags, output_dir=tmp_path / "two")])
    assert outcome.code == 0, outcome.err
    for name in (*OFFICIAL, "eval_results.json"):
        assert_close(read(tmp_path / "one" / name), read(tmp_path / "two" / name))
    for ranks, folder in ((1, "one"), (2, "two")):
        found = read(tmp_path / folder / "inference_benchmark.json")
        assert (found["ranks"], found["batches"], found["batch_size"]) == (ranks, 5 * ranks, 4)
        percentiles = [found[f"latency_ms_{rank}"] for rank in (50, 90, 95, 99, 100)]
        assert percentiles == sorted(percentiles)
        mean_rate = ranks * 1000 * found["batch_size"] / found["latency_ms_mean"]
        assert found["sequences_per_second"] == pytest.approx(mean_rate, rel=0.5)


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_close(*pair)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(one, float) else other)


GOOD = question("a", "a", ("b", 2))


@pytest.mark.parametrize(
    ("content", "flags", "wanted"),
    [
        (None, {}, "there is no question in it"),
        ([question("a", "a", ("c", 2))], {}, "do not stand in their passage"),
        ([question("a", "a", is_impossible=True)], {}, "--version_2_with_negative"),
        ([GOOD], {"doc_stride": 0}, "--doc_stride: found '0', wanted a whole number ≥ 1"),
        ([GOOD], {"max_seq_length": 20, "max_query_length": 17}, "leaves nothing of --max_seq_length 20"),
        ([GOOD], {"max_seq_length": 64}, "it has 40 positions, --max_seq_length 64 wants more"),
        ([GOOD], {"train_file": None}, "--train_file is missing"),
        ([GOOD], {"do_eval": True}, "--predict_file is missing"),
        ([GOOD], {"eval_script": "evaluate.py"}, "exact match and F1 are computed here"),
        ([GOOD], {"benchmark_batches": 3}, "--benchmark_batches times predictions"),
    ],
)
def test_what_cannot_be_done_is_one_message(encoder, tmp_path, content, flags, wanted):
    path = write_squad(tmp_path / "train.json", ("a b", content or []))
    flags = {"train_file": path, "max_seq_length": 24, "max_query_length": 8, "doc_stride": 4} | flags
    outcome = squad_here(init_checkpoint=encoder, do_train=True, output_dir=tmp_path / "run", **flags)
    assert outcome.code in (1, 2)
    assert wanted in outcome.err
    assert "Traceback" not in outcome.err


def test_malformed_json_to_predict_stops_the_run_before_it_trains(encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "dev.json"
    broken.write_text('{"data": [{"paragraphs": [')
    outcome = squad_here(
        init_checkpoint=encoder, do_train=True, do_predict=True, train_file=letters(tmp_path / "train.json", 3),
        predict_file=broken, output_dir=tmp_path / "run", max_seq_length=24, max_query_length=8,
    )  # fmt: skip
    assert outcome.code == 1
    assert f"{broken}: line 1, column 27: this is not JSON" in outcome.err
    assert not metrics(tmp_path / "run", "train")


@pytest.mark.slow
def test_minilm_learns_to_answer_from_a_thousand_questions(tmp_path: Path) -> None:
    content = read(shared_data("squad", "notre_dame.json"))
    paragraphs = content["data"][0]["paragraphs"]
    for name, part in (("some", paragraphs[:27]), ("rest", paragraphs[27:])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": [{"title": name, "paragraphs": part}]}))
    train = [shared_data("squad", "super_bowl_50.json"), tmp_path / "some.json"]
    shape = {"predict_file": tmp_path / "rest.json", "max_seq_length": 192, "doc_stride": 96, "cache_dir": tmp_path}
    run, untrained = tmp_path / "run", tmp_path / "untrained"
    command = squad_command(
        init_checkpoint=real_encoder(), do_train=True, do_eval=True, do_predict=True, output_dir=run, **shape,
        train_batch_size=8, max_steps=110, learning_rate=3e-4, eval_interval=1000,
    )  # fmt: skip
    outcome = run_program(
        [sys.executable, *command, "--train_file", *map(str, train)], timeout=900, OMP_NUM_THREADS="2"
    )
    assert outcome.code == 0, outcome.err
    loaded = load_source(real_encoder())
    model = TaskModel(loaded.config, "question_answering", vocab_size=len(loaded.vocabulary.tokens), seed=1)
    model.take_pretrained(loaded.state_dict)
    export_task_model(untrained / "model", model, loaded.vocabulary)
    outcome = squad_here(init_checkpoint=untrained, do_eval=True, output_dir=tmp_path / "before", **shape)
    assert outcome.code == 0, outcome.err
    before, after = (read(folder / "eval_results.json")["f1"] for folder in (tmp_path / "before", run))
    assert after > 25  # measured: 37 after 130 updates, 12 for the head at random
    assert after > 2 * before
