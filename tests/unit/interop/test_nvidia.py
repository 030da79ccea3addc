"""Checkpoints as NVIDIA's DeepLearningExamples and the fork write them, made from a real model by renaming."""

import collections
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.nvidia import Hints, export_nvidia
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from tests.support.packed_batches import padded, random_batch, small_config
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)
THEIR_SHAPE = {
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 64,
    "initializer_range": 0.2,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": V,
}


def their_model(seed: int = 4, **changes: Any) -> BertForPreTraining:
    return BertForPreTraining(small_config(vocab_size=V, **changes), seed=seed).eval()


def their_names(model: BertForPreTraining, prefix: str = "", old_norms: bool = False) -> dict[str, torch.Tensor]:
    """Rename to NVIDIA's names, independently of the code under test; rows to a multiple of 8, as theirs."""
    tensors: dict[str, torch.Tensor] = collections.OrderedDict()
    for name, tensor in model.state_dict().items():
        for module in ("intermediate", "pooler", "transform"):
            name = name.replace(f"{module}.dense.", f"{module}.dense_act.")
        if old_norms:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if name == "cls.predictions.bias":
            tensor = torch.cat([tensor, torch.zeros(-len(tensor) % 8)])
        tensors[prefix + name] = tensor
    tensors[f"{prefix}cls.predictions.decoder.weight"] = tensors[f"{prefix}bert.embeddings.word_embeddings.weight"]
    return tensors


def fork_checkpoint(model: BertForPreTraining) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters())
    sampler = {"epoch": 1, "seed": 42, "num_replicas": 8, "total_size": 1000, "index": 13}
    return {"model": their_names(model), "optimizer": optimizer.state_dict(), "sampler": sampler, "epoch": 1}


KINDS: dict[str, Callable[[BertForPreTraining], Any]] = {
    "fork": fork_checkpoint,
    "nvidia_with_scaler": lambda model: {**fork_checkpoint(model), "grad_scaler": {"scale": 65536.0}, "sampler": None},
    "from_inside_ddp": lambda model: {"model": their_names(model, prefix="module.")},
    "old_norm_names": lambda model: {"model": their_names(model, old_norms=True), "master params": [], "files": ["a"]},
    "state_dict_alone": their_names,
    "half_precision": lambda model: {"model": {name: value.half() for name, value in their_names(model).items()}},
}


def beside(folder: Path, **changes: Any) -> None:
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY.tokens))
    (folder / "bert_config.json").write_text(json.dumps({**THEIR_SHAPE, **changes}))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint_gives_the_weights_it_was_made_of(tmp_path: Path, kind: str, legacy: bool) -> None:
    model = their_model()
    beside(tmp_path)
    torch.save(KINDS[kind](model), tmp_path / "ckpt_8601.pt", _use_new_zipfile_serialization=not legacy)
    loaded = load_source(tmp_path / "ckpt_8601.pt")
    assert (loaded.missing, loaded.unexpected, loaded.vocabulary) == ((), (), VOCABULARY)
    wanted = {
        name: tensor.half().float() if kind == "half_precision" else tensor
        for name, tensor in model.state_dict().items()
    }
    assert loaded.state_dict.keys() == wanted.keys()
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in wanted.items())


def test_a_fork_checkpoint_gives_equal_scores_in_transformers(tmp_path: Path) -> None:
    model = their_model()
    beside(tmp_path)
    torch.save(fork_checkpoint(model), tmp_path / "ckpt_1.pt")
    loaded = load_source(tmp_path / "ckpt_1.pt")
    export_huggingface(tmp_path / "hf", loaded.state_dict, loaded.config, loaded.vocabulary)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    batch = random_batch((5, 17, 9), V)
    rows = padded(batch)
    with torch.no_grad():
        scores = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids).logits[rows.real]
        assert torch.allclose(model.mlm_logits(model.encode(batch)), scores, rtol=1e-5, atol=1e-5)


def test_a_run_folder_of_the_fork_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "pretrain_ckpts"
    folder.mkdir()
    beside(folder)
    for step, seed in ((900, 1), (1000, 2)):
        torch.save(fork_checkpoint(their_model(seed)), folder / f"ckpt_{step}.pt")
    wanted = their_model(2).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in load_source(tmp_path).state_dict.items())


def test_the_forks_configuration_and_a_roberta_without_segments_load(tmp_path: Path) -> None:
    model = their_model(next_sentence=False, type_vocab_size=0)
    torch.save({"model": their_names(model)}, tmp_path / "ckpt_1.pt")
    vocabulary, shape = tmp_path / "words.txt", tmp_path / "roberta_large_cased_config.json"
    added = {"vocab_file": "data/vocab.txt", "tokenizer": "wordpiece", "lowercase": False, "model_name": "roberta"}
    shape.write_text(json.dumps({**THEIR_SHAPE, **added, "next_sentence": False, "output_all_encoded_layers": False}))
    vocabulary.write_text("".join(f"{token}\n" for token in VOCABULARY.tokens))
    loaded = load_source(tmp_path / "ckpt_1.pt", Hints(str(shape), vocabulary))
    assert (loaded.config.next_sentence, loaded.config.type_vocab_size, loaded.vocabulary.lowercase) == (
        False,
        0,
        False,
    )
    assert load_source(tmp_path / "ckpt_1.pt", Hints(str(shape), vocabulary, lowercase=True)).vocabulary == VOCABULARY


def test_what_the_file_does_not_hold_is_asked_for_with_the_fitting_shipped_shape(tmp_path: Path) -> None:
    shape = ModelConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, vocab_size=V
    )
    torch.save({"model": their_names(BertForPreTraining(shape))}, tmp_path / "ckpt_1.pt")
    with pytest.raises(ConfigError) as error:
        load_source(tmp_path / "ckpt_1.pt")
    told = str(error.value)
    assert "--model_config_file: it has 2 layers of width 128 (of the shipped ones, bert_tiny_uncased)" in told
    assert "--vocab_file" in told
    assert "bert_pytorch.convert SRC DST.pt" in told
    hints = Hints("bert_tiny_uncased", tmp_path / "vocab.txt")
    beside(tmp_path)
    assert "max_position_embeddings" not in str(load_source(tmp_path / "ckpt_1.pt", hints).missing)


class Loader:
    """What old checkpoints of NVIDIA's hold beside the weights: an object of a class."""


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_are_never_unpickled_and_the_way_out_is_told(tmp_path: Path, legacy: bool) -> None:
    beside(tmp_path)
    content = {"model": their_names(their_model()), "data_loader": Loader()}
    torch.save(content, tmp_path / "ckpt_1.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"Loader.*not loaded.*keep its weights alone"):
        load_source(tmp_path / "ckpt_1.pt")


def test_export_is_what_nvidia_reads_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = their_model()
    export_nvidia(tmp_path, model.state_dict(), model.config, VOCABULARY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert_config.json", "ckpt_0.pt", "vocab.txt"]
    written = torch.load(tmp_path / "ckpt_0.pt", weights_only=True)["model"]
    wanted = their_names(model)
    assert written.keys() == wanted.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in wanted.items())
    config = json.loads((tmp_path / "bert_config.json").read_text())
    assert {name: config[name] for name in THEIR_SHAPE} == THEIR_SHAPE
    loaded = load_source(tmp_path)
    assert (loaded.missing, loaded.unexpected, loaded.vocabulary) == ((), (), VOCABULARY)
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


def test_an_encoder_alone_is_exported_without_heads(tmp_path: Path) -> None:
    model = their_model()
    encoder = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    export_nvidia(tmp_path, encoder, model.config, VOCABULARY)
    assert set(load_source(tmp_path).missing) == {name for name in model.state_dict() if name.startswith("cls.")}


def test_byte_level_bpe_is_not_exported(tmp_path: Path) -> None:
    model = their_model()
    with pytest.raises(InputError, match="WordPiece only"):
        export_nvidia(tmp_path, model.state_dict(), model.config, small_byte_bpe())


def test_other_architectures_are_not_exported(tmp_path: Path) -> None:
    model = build_model(small_config(model_type="distilbert", type_vocab_size=0, next_sentence=False, vocab_size=V))
    with pytest.raises(InputError, match="for BERT alone"):
        export_nvidia(tmp_path, model.state_dict(), model.config, VOCABULARY)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"model": {}}, "no format_version"),
        ({"model": [1, 2]}, "no format_version"),
        ([1, 2], "no format_version"),
        ({"weights": torch.zeros(2)}, re.escape("no bert.embeddings.word_embeddings.weight")),
    ],
)
def test_other_files_are_refused_in_one_message(tmp_path: Path, content: Any, told: str) -> None:
    beside(tmp_path)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=told):
        load_source(tmp_path / "x.pt")


def test_a_vocabulary_of_more_tokens_than_rows_is_refused(tmp_path: Path) -> None:
    beside(tmp_path)
    torch.save({"model": their_names(their_model())}, tmp_path / "ckpt_1.pt")
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in (*VOCABULARY.tokens, *map(str, range(100)))))
    with pytest.raises(InputError, match=f"{V + 100} tokens, the word embedding {V + -V % 8} rows"):
        load_source(tmp_path / "ckpt_1.pt")
