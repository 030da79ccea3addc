"""Task heads against those of transformers, with the same weights: scores and gradients, out and in."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.interop.huggingface import export_huggingface, their_tensors
from bert_pytorch.interop.task_models import export_task_model, load_task_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task, TaskModel
from tests.support.architectures import config_of, spread_model
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import padded, random_batch
from tests.support.vocabularies import small_byte_bpe

VOCABULARY = small_byte_bpe()
V = len(VOCABULARY.tokens)
NAMES = ["bert", "roberta", "distilbert", "modernbert"]
AUTO: dict[Task, type] = {
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
    "question_answering": transformers.AutoModelForQuestionAnswering,
}
LABELS = ("no", "maybe", "yes")
LENGTHS = (5, 17, 9, 33)


def labels_of(task: Task) -> tuple[str, ...]:
    return () if task == "question_answering" else LABELS


def model_for(name: str, task: Task) -> TaskModel:
    model = TaskModel(config_of(name), task, len(labels_of(task)) or 2, V, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def batch_for(name: str) -> PackedBatch:
    batch = random_batch(LENGTHS, V)
    segments = batch.token_type_ids if name == "bert" else torch.zeros_like(batch.token_type_ids)
    return batch._replace(input_ids=batch.input_ids.clamp(min=2), token_type_ids=segments)  # no padding token


def their_scores(model: torch.nn.Module, batch: PackedBatch, task: Task) -> Tensor:
    rows = padded(batch)
    segments = {"token_type_ids": rows.token_type_ids} if batch.token_type_ids.any() else {}
    ids = torch.where(rows.real, rows.input_ids, VOCABULARY.pad_id)
    output = model(input_ids=ids, attention_mask=rows.attention_mask, **segments)
    if task == "question_answering":
        return torch.stack([output.start_logits, output.end_logits], dim=-1)[rows.real]
    return output.logits[rows.real] if task == "token_classification" else output.logits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", AUTO)
def test_scores_and_gradients_equal_those_of_transformers(name: str, task: Task, tmp_path: Path) -> None:
    ours, batch = model_for(name, task), batch_for(name)
    export_task_model(tmp_path, ours, VOCABULARY, labels_of(task))
    theirs, information = AUTO[task].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(information.values()), information
    if labels_of(task):
        assert list(theirs.config.id2label.values()) == list(LABELS)
    found, wanted = ours.eval()(batch), their_scores(theirs.eval(), batch, task)
    assert relative_error(found, wanted) < 1e-5
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert largest_error(their_tensors(gradients, ours.config, VOCABULARY, task), expected) < 1e-4


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("task", AUTO)
def test_dropout_stands_before_the_last_layer_where_that_of_transformers_does(
    name: str, task: Task, tmp_path: Path
) -> None:
    config, batch = config_of(name).model_copy(update={"hidden_dropout_prob": 0.5}), batch_for(name)
    ours = TaskModel(config, task, len(labels_of(task)) or 2, V)
    export_task_model(tmp_path, ours, VOCABULARY, labels_of(task))
    theirs = AUTO[task].from_pretrained(tmp_path)
    ours.train().bert.eval()  # what drops now is the head's
    theirs.train().base_model.eval()
    drops = not torch.equal(ours(batch), ours(batch))
    assert drops == (not torch.equal(their_scores(theirs, batch, task), their_scores(theirs, batch, task)))
    assert drops == (task != "question_answering" or name == "distilbert")


@pytest.mark.parametrize("name", [*NAMES, "mosaic_bert"])
@pytest.mark.parametrize("task", AUTO)
def test_export_and_load_give_back_every_bit(name: str, task: Task, tmp_path: Path) -> None:
    model = model_for(name, task)
    export_task_model(tmp_path, model, VOCABULARY, labels_of(task))
    loaded = load_task_model(tmp_path)
    assert (loaded.model.task, loaded.labels, loaded.vocabulary) == (task, labels_of(task), VOCABULARY)
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.model.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [*NAMES, "mosaic_bert", "bert_without_pairs"])
@pytest.mark.parametrize("task", AUTO)
def test_pretrained_weights_leave_the_tasks_own_layers_at_their_initial_values(name: str, task: Task) -> None:
    pretrained, model = spread_model(config_of(name)), TaskModel(config_of(name), task, 3, seed=1)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kept = set(model.take_pretrained(pretrained.state_dict()))
    last = "qa_outputs" if task == "question_answering" else "classifier"
    wanted = {f"{last}.weight", f"{last}.bias"}
    if task == "sequence_classification" and name not in ("bert", "modernbert"):
        wanted |= {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert kept == wanted
    for key, tensor in model.state_dict().items():
        if key in kept:
            assert torch.equal(tensor, before[key])
        elif key in pretrained.state_dict():
            assert torch.equal(tensor, pretrained.state_dict()[key])


def test_sequence_classification_computes_first_tokens_only_in_the_last_layer() -> None:
    model = model_for("bert", "sequence_classification").double().eval()
    rows = []
    model.bert.encoder.layer[-1].output.dense.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    pruned = model(batch_for("bert"))
    model.prunes_last_layer = False
    whole = model(batch_for("bert"))
    assert rows == [len(LENGTHS), sum(LENGTHS)]
    assert torch.allclose(pruned, whole, rtol=1e-11, atol=1e-13)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BAD = {
    "architectures": {"architectures": ["BertForMultipleChoice"]},
    "id2label": {"id2label": {"0": "a", "2": "b"}},
    "classifier_pooling": {"classifier_pooling": "mean"},
    "classifier.weight has shape": {"id2label": {"0": "a"}},
}


@pytest.mark.parametrize("told", BAD)
def test_a_folder_that_is_no_such_task_is_told_in_one_message(told: str, tmp_path: Path) -> None:
    export_task_model(tmp_path, model_for("bert", "sequence_classification"), VOCABULARY, LABELS)
    change_config(tmp_path, **BAD[told])
    with pytest.raises((ConfigError, InputError), match=told):
        load_task_model(tmp_path)


def test_a_pretrained_model_is_no_task_model(tmp_path: Path) -> None:
    config = config_of("bert")
    export_huggingface(tmp_path, spread_model(config, V).state_dict(), config, VOCABULARY)
    with pytest.raises(ConfigError, match="BertForPreTraining"):
        load_task_model(tmp_path)
