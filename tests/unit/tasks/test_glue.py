"""GLUE's layouts, metrics and submissions, against scikit-learn, SciPy and the benchmark's rules."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.tasks.glue.layouts import LAYOUTS, score
from bert_pytorch.tasks.glue.reading import read_part
from bert_pytorch.tasks.glue.task import GlueTask
from bert_pytorch.tasks.task import Settled
from bert_pytorch.tokenization.tokenizer import load_tokenizer, tokenizer_from_vocabulary
from tests.support.data import shared_data
from tests.support.glue import write_glue
from tests.support.vocabularies import small_vocabulary

TOKENIZER = tokenizer_from_vocabulary(small_vocabulary())
COUNT = 24


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glue(tmp_path_factory.mktemp("glue"), COUNT)


def task_for(name: str, folder: Path, settled: Settled | None = None) -> GlueTask:
    return GlueTask(name, folder, None, TOKENIZER, 64, settled)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_part_of_every_task_is_read_with_its_quotation_marks(name: str, glue: Path) -> None:
    task = task_for(name, glue)
    quote = TOKENIZER.vocabulary.unknown_id  # the small vocabulary has no quotation mark
    for part in ("train", *task.eval_parts, *task.predict_parts):
        features = task.features(part)
        assert len(features.examples) == COUNT
        assert (features.labels is not None) == (part in ("train", *task.eval_parts, "diagnostics"))
        pairs = features.segment_b_starts < features.lengths
        assert pairs.all() == (name not in ("cola", "sst-2"))
        assert (features.input_ids == quote).sum() == 5


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_metrics_equal_those_of_scikit_learn_and_scipy(name: str, glue: Path) -> None:
    task = task_for(name, glue)
    rng = np.random.default_rng(0)
    results: dict[str, float] = {}
    wanted: dict[str, float] = {}
    for part in task.eval_parts:
        features = task.features(part)
        assert features.labels is not None
        scores = rng.normal(size=(COUNT, len(task.label_names))).astype(np.float32)
        results |= task.metrics(part, features, list(scores))
        suffix = "_mm" if part == "dev_mismatched" else ""
        labels, found = features.labels, scores.argmax(1)
        if name == "sts-b":
            wanted["pearson"] = scipy.stats.pearsonr(labels, scores[:, 0]).statistic
            wanted["spearman"] = scipy.stats.spearmanr(labels, scores[:, 0]).statistic
        elif name == "cola":
            wanted["mcc"] = sklearn.metrics.matthews_corrcoef(labels, found)
        else:
            wanted[f"accuracy{suffix}"] = sklearn.metrics.accuracy_score(labels, found)
            if name in ("mrpc", "qqp"):
                wanted["f1"] = sklearn.metrics.f1_score(labels, found)
    assert results == pytest.approx(wanted, abs=1e-6)
    assert score(name, results) == pytest.approx(np.mean(list(wanted.values())), abs=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_submissions_have_the_sites_names_header_and_labels(name: str, glue: Path, tmp_path: Path) -> None:
    task = task_for(name, glue)
    for part in task.predict_parts:
        scores = np.random.default_rng(1).normal(size=(COUNT, len(task.label_names))).astype(np.float32) * 9
        task.write_predictions(part, task.features(part), list(scores), tmp_path)
    spelled = LAYOUTS[name].folder
    names = ["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"] if name == "mnli" else [f"{spelled}.tsv"]
    files = sorted((tmp_path / "submission").iterdir())
    assert [file.name for file in files] == names
    for file in files:
        header, *rows = [line.split("\t") for line in file.read_text().splitlines()]
        assert header == ["index", "prediction"]
        assert [row[0] for row in rows] == [str(number) for number in range(COUNT)]
        if name == "sts-b":
            assert all(0 <= float(row[1]) <= 5 for row in rows)
        else:
            assert {row[1] for row in rows} <= set(LAYOUTS[name].labels)


def test_labels_stand_in_the_order_of_the_model_that_is_evaluated(glue: Path) -> None:
    order = ("contradiction", "entailment", "neutral")
    task, other = task_for("mnli", glue, Settled(order, {})), task_for("mnli", glue)
    ours, theirs = (each.features("dev_matched").labels for each in (task, other))
    assert ours is not None
    assert theirs is not None
    assert [order[number] for number in ours] == [other.label_names[number] for number in theirs]
    assert task_for("sts-b", glue, Settled(("LABEL_0",), {})).label_names == ("LABEL_0",)
    with pytest.raises(ConfigError, match="the model's labels are LABEL_0, LABEL_1"):
        task_for("rte", glue, Settled(("LABEL_0", "LABEL_1"), {}))


def test_f1_is_that_of_duplicates_whatever_the_order_of_labels(glue: Path) -> None:
    task = task_for("qqp", glue, Settled(("1", "0"), {}))
    features = task.features("dev")
    assert features.labels is not None
    scores = np.random.default_rng(3).normal(size=(COUNT, 2))
    wanted = sklearn.metrics.f1_score(1 - features.labels, 1 - scores.argmax(1))
    assert task.metrics("dev", features, list(scores))["f1"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is missing"),
        ("index\tsentence1\tsentence2\tlabel\n", "no examples"),
        ("index\tsentence1\tsentence2\n0\ta\tb\n", "label is missing"),
        ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\n", "line 3: found 2 fields, wanted 4"),
        ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tperhaps\n", "line 2: the label is 'perhaps'"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        task_for("rte", tmp_path).features("train")
    with pytest.raises(InputError, match="no such file"):
        task_for("rte", tmp_path).features("dev")


@pytest.mark.parametrize(("name", "train", "dev"), [("cola", 8551, 527), ("sst-2", 6920, 872), ("mrpc", 4076, 1725)])
def test_real_files_have_as_many_examples_as_lines(name: str, train: int, dev: int) -> None:
    folder = shared_data("glue", LAYOUTS[name].folder)
    for file, count in (("train.tsv", train), ("dev.tsv", dev)):
        assert len(read_part(folder / file, LAYOUTS[name], labelled=True).first) == count


def test_real_rte_has_both_labels_and_room_for_most_pairs() -> None:
    tokenizer = load_tokenizer(shared_data("vocab", "bert-base-uncased-vocab.txt"))
    task = GlueTask("rte", shared_data("glue"), None, tokenizer, 128, None)
    features = task.features("dev")
    assert features.labels is not None
    assert set(features.labels.tolist()) == {0, 1}
    assert (features.lengths < 128).mean() > 0.8
