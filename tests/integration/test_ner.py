"""run_ner.py from its files to a model that `predict tag` opens; and what it refuses."""

import json
from pathlib import Path

import pytest
from seqeval.metrics import f1_score

from bert_pytorch.finetuning import ner
from tests.support.commands import run_python
from tests.support.data import real_encoder, shared_data
from tests.support.finetuning import small_encoder, small_task_model
from tests.support.runs import Outcome, run_here, words

TINY = "the O\nking B-PER\nof O\nfrance B-LOC\n\nparis B-LOC\nis O\na O\ncapital O\n"


def tag_here(**flags: object) -> Outcome:
    return run_here(ner.main, words({"skip_cache": True, **flags}))


def part_of(source: Path, path: Path, sentences: int) -> Path:
    """Write the first sentences of a file."""
    blocks = source.read_text(encoding="utf-8").split("\n\n")
    path.write_text("\n\n".join(blocks[:sentences]) + "\n", encoding="utf-8")
    return path


def test_minilm_learns_entities_in_few_updates_and_predict_finds_them(tmp_path: Path) -> None:
    train = part_of(shared_data("ner", "conll2003", "eng.train"), tmp_path / "train", 1200)
    test = part_of(shared_data("ner", "conll2003", "eng.testa"), tmp_path / "test", 200)
    outcome = tag_here(
        init_checkpoint=real_encoder(), output_dir=tmp_path / "run", do_train=True, do_eval=True, do_predict=True,
        train_file=train, val_file=test, test_file=test, max_steps=40, train_batch_size=16, learning_rate=3e-4,
        hidden_dropout=0.0,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["f1"] == results["test_f1"] > 0.4  # tags drawn at random: 0.03
    rows = [line.split() for line in (tmp_path / "run" / "test_predictions.conll").read_text().splitlines()]
    rows = [row for row in rows if row and row[0] != "-DOCSTART-"]
    assert f1_score([[row[3] for row in rows]], [[row[4] for row in rows]]) == pytest.approx(results["f1"], abs=0.02)
    text = "The European Union met in Germany on Tuesday ."
    found = run_python("-m", "bert_pytorch.predict", "tag", "--checkpoint", tmp_path / "run", text)
    record = json.loads(found.stdout)
    assert "Germany" in [entity["text"] for entity in record["entities"]]


def test_a_model_of_a_run_is_evaluated_and_predicts_without_training(tmp_path: Path) -> None:
    (tmp_path / "tiny.conll").write_text(TINY)
    files = {"train_file": tmp_path / "tiny.conll", "val_file": tmp_path / "tiny.conll"}
    encoder = small_encoder(tmp_path / "encoder")
    options = {"max_seq_length": 40, "learning_rate": 1e-2, "max_steps": 60, "train_batch_size": 2}
    outcome = tag_here(
        init_checkpoint=encoder, output_dir=tmp_path / "run", do_train=True, do_eval=True, **files, **options
    )
    assert outcome.code == 0, outcome.err
    trained = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert trained["f1"] == 1.0
    outcome = tag_here(
        init_checkpoint=tmp_path / "run", output_dir=tmp_path / "again", do_eval=True, do_predict=True,
        val_file=files["val_file"], test_file=files["val_file"], max_seq_length=40,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert again == trained | {f"test_{name}": value for name, value in trained.items()}


BAD = {
    "--val_file is missing: --do_eval needs it": {"do_eval": True},
    "absent: no such file": {"val_file": "absent"},
    "--labels: found LOC": {"labels": "LOC"},
    "the model has no label for 'B-ORG'": {"val_file": "other"},
    "line 1: 'x' is no tag": {"val_file": "no_tags"},
    "there is no word in it": {"val_file": "empty"},
    "its labels are bad good; wanted O": {"init_checkpoint": "strange"},
}


@pytest.mark.parametrize("told", BAD)
def test_what_cannot_be_done_is_told_in_one_message(told: str, tmp_path: Path) -> None:
    contents = {"file": TINY, "other": TINY.replace("LOC", "ORG"), "no_tags": "the x\n", "empty": "\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    labels = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    small_task_model(tmp_path / "model", "token_classification", labels)
    small_task_model(tmp_path / "strange", "token_classification", ("bad", "good"))
    flags: dict[str, object] = {"init_checkpoint": "model", "do_eval": True, "val_file": "file"} | BAD[told]
    flags = {
        name: tmp_path / value if name in ("init_checkpoint", "val_file") else value for name, value in flags.items()
    }
    if told.startswith("--val_file"):
        del flags["val_file"]
    outcome = tag_here(output_dir=tmp_path / "run", max_seq_length=40, **flags)
    assert outcome.code in (1, 2)
    assert outcome.err.count("error:") == 1
    assert told in outcome.err
