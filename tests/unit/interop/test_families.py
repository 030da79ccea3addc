"""RoBERTa, DistilBERT, ModernBERT and MosaicBERT in Hugging Face's files, out and in."""

import fnmatch
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.interop.huggingface import export_huggingface, load_huggingface
from bert_pytorch.interop.names import TEMPLATES, from_family, to_family
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.pretraining import PretrainingModel
from tests.support.architectures import ARCHITECTURES, config_of, spread_model
from tests.support.errors_between import relative_error
from tests.support.packed_batches import padded, random_batch
from tests.support.vocabularies import small_byte_bpe

VOCABULARY = small_byte_bpe()
V = len(VOCABULARY.tokens)
THEIRS = ["roberta", "distilbert", "modernbert"]
SMALL = {"vocab_size": V, "pad_token_id": VOCABULARY.pad_id, "cls_token_id": 0, "sep_token_id": 2}
THEIR_CONFIGS = {
    "roberta": transformers.RobertaConfig(
        **SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5,
    ),
    "distilbert": transformers.DistilBertConfig(
        **SMALL, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=40, activation="relu"
    ),
    "modernbert": transformers.ModernBertConfig(
        **SMALL, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40, local_attention=6, global_attn_every_n_layers=2, bos_token_id=0, eos_token_id=2,
    ),
}  # fmt: skip


def exported(folder: Path, name: str) -> tuple[PretrainingModel, ModelConfig]:
    config = config_of(name)
    model = spread_model(config, V).eval()
    export_huggingface(folder, model.state_dict(), config, VOCABULARY)
    return model, config


def put_vocabulary(folder: Path) -> None:
    """Put the files of a tokenizer beside weights that transformers saved."""
    config = config_of("bert")
    other = folder / "other"
    export_huggingface(other, build_model(config, V).state_dict(), config, VOCABULARY)
    for file in other.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.rename(folder / file.name)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("bert")])
def test_export_and_load_give_back_every_bit(name: str, tmp_path: Path) -> None:
    model, config = exported(tmp_path, name)
    loaded = load_huggingface(tmp_path)
    assert loaded.missing == loaded.unexpected == ()
    assert loaded.config == config.model_copy(update={"vocab_size": V, "lowercase": False})
    assert loaded.state_dict.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_name_of_a_model_comes_back_from_its_familys(name: str) -> None:
    config = config_of(name)
    state_dict = build_model(config).state_dict()
    theirs = to_family(state_dict, config.model_type)
    assert sum(tensor.numel() for tensor in theirs.values()) == sum(tensor.numel() for tensor in state_dict.values())
    back = from_family(theirs, config.model_type)
    assert back.keys() == state_dict.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state_dict.items())


@pytest.mark.parametrize("name", THEIRS)
def test_every_template_names_a_weight_of_transformers(name: str) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_config(THEIR_CONFIGS[name]).state_dict()
    renamed = from_family(theirs, THEIR_CONFIGS[name].model_type)
    assert not set(renamed) & set(theirs)  # none is left as it was
    for template in TEMPLATES[THEIR_CONFIGS[name].model_type]:
        assert fnmatch.filter(theirs, template.theirs), f"{template.theirs} names nothing"


@torch.no_grad()
@pytest.mark.parametrize("name", THEIRS)
def test_what_transformers_saves_loads_with_equal_scores(name: str, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_config(THEIR_CONFIGS[name]).eval()
    theirs.save_pretrained(tmp_path)
    put_vocabulary(tmp_path)
    loaded = load_huggingface(tmp_path)
    assert loaded.missing == loaded.unexpected == ()
    assert loaded.config.max_position_embeddings == 40
    ours = build_model(loaded.config, V).eval()
    ours.load_state_dict(loaded.state_dict)
    batch = random_batch((5, 17, 9), V)
    batch = batch._replace(input_ids=batch.input_ids.clamp(min=2))
    rows = padded(batch)
    ids = torch.where(rows.real, rows.input_ids, VOCABULARY.pad_id)
    wanted = theirs(ids, rows.attention_mask).logits[rows.real]
    assert torch.allclose(ours.mlm_logits(ours.encode(batch)), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", THEIRS)
def test_exported_encoder_gives_equal_hidden_states_in_transformers(name: str, tmp_path: Path) -> None:
    model, _ = exported(tmp_path, name)
    theirs, information = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert all("pooler" in key for key in information["missing_keys"])  # RobertaModel's own
    batch = random_batch((5, 17, 9), V)
    batch = batch._replace(input_ids=batch.input_ids.clamp(min=2))
    rows = padded(batch)
    ids = torch.where(rows.real, rows.input_ids, VOCABULARY.pad_id)
    wanted = theirs.eval()(ids, rows.attention_mask).last_hidden_state[rows.real]
    assert relative_error(model.encode(batch), wanted) < 1e-5


@pytest.mark.parametrize("name", THEIRS)
def test_encoder_alone_says_which_heads_it_lacks(name: str, tmp_path: Path) -> None:
    theirs = transformers.AutoModel.from_config(THEIR_CONFIGS[name])
    theirs.save_pretrained(tmp_path)
    put_vocabulary(tmp_path)
    loaded = load_huggingface(tmp_path)
    assert loaded.missing
    assert all(name.startswith("cls.predictions.") for name in loaded.missing)
    assert all("pooler" in name for name in loaded.unexpected)  # RobertaModel has one, which no loss trained


def test_mosaic_bert_has_its_authors_names(tmp_path: Path) -> None:
    exported(tmp_path, "mosaic_bert")
    tensors = load_file(tmp_path / "model.safetensors")
    block = "bert.encoder.layer.1"
    assert {name for name in tensors if name.startswith(block)} == {
        f"{block}.attention.self.Wqkv.weight", f"{block}.attention.self.Wqkv.bias",
        f"{block}.attention.output.dense.weight", f"{block}.attention.output.dense.bias",
        f"{block}.attention.output.LayerNorm.weight", f"{block}.attention.output.LayerNorm.bias",
        f"{block}.mlp.gated_layers.weight", f"{block}.mlp.wo.weight", f"{block}.mlp.wo.bias",
        f"{block}.mlp.layernorm.weight", f"{block}.mlp.layernorm.bias",
    }  # fmt: skip
    assert tensors[f"{block}.mlp.gated_layers.weight"].shape == (192, 64)


def test_mosaic_bert_as_its_authors_publish_it_loads(tmp_path: Path) -> None:
    model, _ = exported(tmp_path, "mosaic_bert")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "bert"}))
    tensors = load_file(tmp_path / "model.safetensors")
    copied = {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone()}
    save_file({**tensors, **copied}, tmp_path / "model.safetensors")
    loaded = load_huggingface(tmp_path)
    assert loaded.config.model_type == "mosaic_bert"
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


def test_transformers_refuses_a_mosaic_bert_instead_of_opening_another_model(tmp_path: Path) -> None:
    exported(tmp_path, "mosaic_bert")
    with pytest.raises(ValueError, match="mosaic_bert"):
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)


REFUSED = {
    "layer_types": ("modernbert", {"layer_types": ["sliding_attention"] * 4}),
    "rope_parameters": ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}),
    "attention_bias": ("modernbert", {"attention_bias": True}),
    "classifier_activation": ("modernbert", {"classifier_activation": "relu"}),
    "embedding_dropout": ("modernbert", {"embedding_dropout": 0.1}),
    "position_embedding_type": ("roberta", {"position_embedding_type": "relative_key"}),
    "is_decoder": ("roberta", {"is_decoder": True}),
    "tie_word_embeddings": ("distilbert", {"tie_word_embeddings": False}),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_here_is_refused_by_name(key: str, tmp_path: Path) -> None:
    name, changes = REFUSED[key]
    exported(tmp_path, name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=key):
        load_huggingface(tmp_path)


BAD_TENSORS = {
    "single number": ("roberta", "roberta.embeddings.position_embeddings.weight", torch.tensor(1.0)),
    "word_embeddings.weight is a single number": (
        "modernbert", "model.embeddings.tok_embeddings.weight", torch.tensor(1.0)
    ),
    "query.weight is missing": ("modernbert", "model.layers.1.attn.Wqkv.weight", torch.zeros(100, 64)),
    "key.weight is missing": ("modernbert", "model.layers.0.attn.Wqkv.weight", torch.tensor(1.0)),
    "linear.weight is missing": ("mosaic_bert", "bert.encoder.layer.0.mlp.gated_layers.weight", torch.zeros(0, 64)),
    "dense.weight has shape": ("distilbert", "distilbert.transformer.layer.0.ffn.lin1.weight", torch.zeros(3)),
}  # fmt: skip


@pytest.mark.parametrize("told", BAD_TENSORS)
def test_a_weight_of_a_wrong_shape_is_told_in_one_message(told: str, tmp_path: Path) -> None:
    name, weight, tensor = BAD_TENSORS[told]
    exported(tmp_path, name)
    tensors = load_file(tmp_path / "model.safetensors")
    assert weight in tensors
    save_file({**tensors, weight: tensor}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=told):
        load_huggingface(tmp_path)
