"""Tags against transformers, word by word; windows, batches, processes; and entities with their places."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.tasks import TaskModel
from tests.support.packed_batches import small_config
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = ["the capital of france is paris", "rome", "a singing the", ""]


def write_model(folder: Path, labels: tuple[str, ...] = LABELS, vocabulary=None) -> Path:
    vocabulary = vocabulary or small_vocabulary()
    model = TaskModel(small_config(), "token_classification", len(labels), len(vocabulary.tokens), seed=3)
    export_task_model(folder, model, vocabulary, labels)
    return folder


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@torch.no_grad()
@pytest.mark.parametrize("vocabulary", [small_vocabulary(), small_byte_bpe()])
def test_each_word_has_the_tag_of_its_first_token_in_transformers(vocabulary, tmp_path: Path, run) -> None:
    folder = write_model(tmp_path, vocabulary=vocabulary)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    outcome = run("tag", "--checkpoint", folder, *TEXTS)
    assert outcome.code == 0
    for record, text in zip(records(outcome.out), TEXTS, strict=True):
        words = text.split()
        assert (record["text"], record["words"]) == (text, words)
        if not words:
            assert record["tags"] == record["entities"] == []
            continue
        inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        best, whose = model(**inputs).logits[0].argmax(-1).tolist(), inputs.word_ids()
        assert record["tags"] == [LABELS[best[whose.index(word)]] for word in range(len(words))]


def test_entities_have_their_places_in_the_text(tmp_path: Path, run) -> None:
    texts = ["(Paris, the capital)  of France.", "rome: a king"]
    outcome = run("tag", "--checkpoint", write_model(tmp_path), *texts)
    found = records(outcome.out)
    assert found[0]["words"] == ["(", "Paris", ",", "the", "capital", ")", "of", "France", "."]
    entities = [(record["text"], entity) for record in found for entity in record["entities"]]
    assert entities
    for text, entity in entities:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert entity["type"] in ("PER", "LOC")
        assert 1 / len(LABELS) <= entity["probability"] <= 1


def test_a_text_longer_than_the_model_is_tagged_to_its_end(tmp_path: Path, run) -> None:
    words = ["the", "capital", "of", "rome", "\u200b"] * 100
    (record,) = records(run("tag", "--checkpoint", write_model(tmp_path), " ".join(words)).out)
    assert record["words"] == words
    assert len(record["tags"]) == len(words)
    assert set(record["tags"][4::5]) == {"O"}
    assert set(record["tags"]) != {"O"}


def test_batches_and_processes_give_what_each_text_gives_alone(tmp_path: Path, run) -> None:
    folder, path = write_model(tmp_path / "model"), tmp_path / "texts.txt"
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(["the", "of", "rome", "Paris,", "x."], rng.integers(0, 60))) for _ in range(700)]
    path.write_text("\n".join([*texts, ""]))
    options = ["tag", "--checkpoint", folder, "--input_file", path]
    alone = records(run(*options, "--max_tokens", "1").out)
    assert [record["text"] for record in alone] == texts
    for found in (run(*options), run(*options, "--processes", "2")):
        together = records(found.out)
        assert [record["tags"] for record in together] == [record["tags"] for record in alone]
        for ours, wanted in zip(together, alone, strict=True):
            assert [entity["text"] for entity in ours["entities"]] == [entity["text"] for entity in wanted["entities"]]


def test_classes_that_name_no_entities_are_tags_alone(tmp_path: Path, run) -> None:
    (record,) = records(run("tag", "--checkpoint", write_model(tmp_path, ("NOUN", "VERB", "DET")), "the king").out)
    assert set(record) == {"text", "words", "tags"}
    assert set(record["tags"]) <= {"NOUN", "VERB", "DET"}


def test_text_that_is_split_already_is_left_so(tmp_path: Path, run) -> None:
    folder = write_model(tmp_path)
    (record,) = records(run("tag", "--checkpoint", folder, "--words", "spaces", "Paris, (the) king").out)
    assert record["words"] == ["Paris,", "(the)", "king"]
