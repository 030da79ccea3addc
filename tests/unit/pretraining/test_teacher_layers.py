"""A student begins from its teacher's evenly spread layers, its embeddings and its head."""

import logging
from pathlib import Path

import pytest
import torch

from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.pretraining.weights import chosen_layers, put_teacher_layers
from tests.support.architectures import config_of, spread_model
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)


def weights_of(model: PretrainingModel) -> LoadedWeights:
    return LoadedWeights(model.state_dict(), model.config, VOCABULARY, (), ())


@pytest.mark.parametrize(
    ("of", "wanted", "layers"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),  # scripts/extract_distilbert.py of DistilBERT's authors
        (4, 2, [0, 3]),
        (3, 3, [0, 1, 2]),
        (12, 1, [0]),
    ],
)
def test_layers_are_spread_from_the_first_to_the_last_as_the_authors_chose(
    of: int, wanted: int, layers: list[int]
) -> None:
    assert chosen_layers(of, wanted) == layers


@pytest.mark.parametrize("teacher_name", ["bert", "bert_without_pairs"])
def test_every_weight_of_the_student_is_the_teachers(teacher_name: str, caplog: pytest.LogCaptureFixture) -> None:
    teacher = spread_model(config_of(teacher_name, num_hidden_layers=5), V)
    student = spread_model(config_of("distilbert", num_hidden_layers=3, initializer_range=0.01), V)
    with caplog.at_level(logging.WARNING, "bert_pytorch"):
        put_teacher_layers(student, weights_of(teacher), Path("teacher"), VOCABULARY)
    assert not caplog.records
    theirs = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        for mine, its in ((0, 0), (1, 2), (2, 4)):
            if name.startswith(f"bert.encoder.layer.{mine}."):
                name = name.replace(f"layer.{mine}.", f"layer.{its}.")
                break
        assert torch.equal(tensor, theirs[name]), name
