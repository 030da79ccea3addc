"""Models from our checkpoints, output folders and exported directories."""

from pathlib import Path

import pytest
import torch

from bert_pytorch.errors import InputError
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.sources import load_model, load_source
from bert_pytorch.models.bert import BertForPreTraining
from tests.support.packed_batches import random_batch, small_config
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()
CONFIG = small_config(vocab_size=len(VOCABULARY.tokens), hidden_dropout_prob=0.1)


def saved(path: Path, seed: int) -> BertForPreTraining:
    """Write a checkpoint with the entries that the contract names."""
    model = BertForPreTraining(CONFIG, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {
        "model": model.state_dict(),
        "model_config": CONFIG.model_dump(),
        "vocabulary": list(VOCABULARY.tokens),
        "lowercase": VOCABULARY.lowercase,
        "format_version": 1,
        "phase_end": False,
    }
    torch.save(entries, path)
    return model


def is_same(source: Path, model: BertForPreTraining) -> bool:
    loaded = load_source(source)
    assert (loaded.config, loaded.vocabulary, loaded.missing, loaded.unexpected) == (CONFIG, VOCABULARY, (), ())
    return all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


def test_checkpoint_file_loads_bit_for_bit(tmp_path: Path) -> None:
    assert is_same(tmp_path / "ckpt_7.pt", saved(tmp_path / "ckpt_7.pt", seed=1))


def test_output_folder_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path / "pretrain_ckpts" / "ckpt_9.pt", seed=1)
    newest = saved(tmp_path / "pretrain_ckpts" / "ckpt_10.pt", seed=2)
    export_huggingface(tmp_path / "model", BertForPreTraining(CONFIG, seed=3).state_dict(), CONFIG, VOCABULARY)
    assert is_same(tmp_path, newest)
    assert is_same(tmp_path / "pretrain_ckpts", newest)


def test_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    good = saved(tmp_path / "pretrain_ckpts" / "ckpt_9.pt", seed=1)
    saved(tmp_path / "pretrain_ckpts" / "ckpt_10.pt", seed=2)
    damaged = tmp_path / "pretrain_ckpts" / "ckpt_10.pt"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    assert is_same(tmp_path, good)


def test_output_folder_without_checkpoints_gives_its_exported_model(tmp_path: Path) -> None:
    model = BertForPreTraining(CONFIG, seed=3)
    export_huggingface(tmp_path / "model", model.state_dict(), CONFIG, VOCABULARY)
    found = load_source(tmp_path).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_named_inside_a_hugging_face_directory_are_that_directory(tmp_path: Path, name: str) -> None:
    model = BertForPreTraining(CONFIG, seed=3)
    export_huggingface(tmp_path, model.state_dict(), CONFIG, VOCABULARY)
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / name)
    found = load_source(tmp_path / name).state_dict
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())


def test_loaded_model_computes_the_same_without_dropout(tmp_path: Path) -> None:
    model = saved(tmp_path / "ckpt_7.pt", seed=1).eval()
    loaded = load_model(tmp_path / "ckpt_7.pt")
    assert not loaded.model.training
    batch = random_batch((5, 17), len(VOCABULARY.tokens))
    assert torch.equal(loaded.model.encode(batch), model.encode(batch))


def test_model_of_an_encoder_alone_has_initial_heads(tmp_path: Path) -> None:
    model = BertForPreTraining(CONFIG, seed=3)
    encoder = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    export_huggingface(tmp_path, encoder, CONFIG, VOCABULARY)
    loaded = load_model(tmp_path)
    assert set(loaded.missing) == set(model.state_dict()) - set(encoder)
    assert torch.isfinite(loaded.model(random_batch((5, 17), len(VOCABULARY.tokens))).mlm_loss_sum)


def edit(path: Path, **changes: object) -> None:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


BAD = {
    "no such checkpoint": lambda path: path.unlink(),
    "not a checkpoint": lambda path: path.write_bytes(b"\x00" * 64),
    "empty": lambda path: path.write_bytes(b""),
    "cut off or damaged": lambda path: path.write_bytes(path.read_bytes()[:9000]),
    '"vocabulary" is': lambda path: edit(path, vocabulary=3),
    "hidden_size": lambda path: edit(path, model_config={"hidden_size": "wide"}),
    "do not fit": lambda path: edit(path, vocabulary=list(VOCABULARY.tokens[:-9])),
    "is missing": lambda path: edit(path, model_config={**CONFIG.model_dump(), "num_hidden_layers": 4}),
}


@pytest.mark.parametrize("told", BAD)
def test_bad_checkpoint_is_told_in_one_message(tmp_path: Path, told: str) -> None:
    path = tmp_path / "ckpt_7.pt"
    saved(path, seed=1)
    BAD[told](path)
    with pytest.raises(InputError) as error:
        load_source(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_folder_without_a_model_says_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ckpt_N\.pt.*config\.json"):
        load_source(tmp_path)
