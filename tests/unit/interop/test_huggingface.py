"""Hugging Face directories in both directions, opened by transformers itself."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.interop.huggingface import export_huggingface, load_huggingface
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support.data import real_encoder
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import padded, random_batch, small_config
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)
SHAPES = [{}, {"next_sentence": False, "type_vocab_size": 0, "hidden_act": "gelu_tanh"}, {"hidden_act": "swish"}]


def exported(folder: Path, config: ModelConfig) -> BertForPreTraining:
    model = BertForPreTraining(config, V, seed=4).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    export_huggingface(folder, model.state_dict(), config, VOCABULARY)
    return model


def batch_for(config: ModelConfig) -> PackedBatch:
    batch = random_batch((5, 17, 9), V)
    return batch if config.type_vocab_size else batch._replace(token_type_ids=torch.zeros_like(batch.token_type_ids))


def opened(folder: Path, kind: type) -> tuple[torch.nn.Module, dict]:
    model, information = kind.from_pretrained(folder, output_loading_info=True)
    return model.eval(), information


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES)
def test_exported_masked_lm_gives_equal_scores_in_transformers(tmp_path: Path, changes: dict[str, object]) -> None:
    config = small_config(**changes)
    model = exported(tmp_path, config)
    theirs, information = opened(tmp_path, transformers.AutoModelForMaskedLM)
    assert not information["missing_keys"]
    unused = {"bert.pooler", "cls.seq_relationship"} if config.next_sentence else set()
    assert {name.rsplit(".", 1)[0].removesuffix(".dense") for name in information["unexpected_keys"]} == unused
    batch = batch_for(config)
    rows = padded(batch)
    scores = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids).logits[rows.real]
    assert scores.shape == (31, V)
    assert torch.allclose(model.mlm_logits(model.encode(batch)), scores, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_exported_pretraining_model_has_no_missing_and_no_unexpected_names(tmp_path: Path) -> None:
    model = exported(tmp_path, small_config())
    theirs, information = opened(tmp_path, transformers.AutoModelForPreTraining)
    assert isinstance(theirs, transformers.BertForPreTraining)
    assert not any(information.values()), information
    batch = random_batch((5, 17, 9), V)
    rows = padded(batch)
    wanted = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids).seq_relationship_logits
    assert torch.allclose(model.nsp_logits(model.encode(batch), batch.cu_seqlens), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lowercase", [True, False])
def test_exported_tokenizer_opens_in_transformers(tmp_path: Path, lowercase: bool) -> None:
    config, vocabulary = small_config(), small_vocabulary(lowercase)
    model = BertForPreTraining(config, len(vocabulary.tokens))
    export_huggingface(tmp_path, model.state_dict(), config, vocabulary)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == 40
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Paris is [MASK].")["input_ids"])
    assert tokens == ["[CLS]", "paris" if lowercase else "Paris", "is", "[MASK]", ".", "[SEP]"]
    assert tokenizer.pad_token_id == json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == 0


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_byte_bpe_model_opens_in_transformers_and_comes_back(tmp_path: Path, lowercase: bool) -> None:
    config, vocabulary = small_config(), small_byte_bpe(lowercase)
    model = BertForPreTraining(config, len(vocabulary.tokens), seed=4)
    export_huggingface(tmp_path, model.state_dict(), config, vocabulary)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert (theirs.config.pad_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (1, 1, 40)
    text = "The KING is <mask>ing"
    assert tokenizer(text)["input_ids"] == Tokenizer(vocabulary).encode_with_masks(text)
    assert theirs(**tokenizer([text, "a"], padding=True, return_tensors="pt")).logits.shape[-1] == len(
        vocabulary.tokens
    )
    loaded = load_huggingface(tmp_path)
    assert loaded.vocabulary == vocabulary
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("changes", SHAPES)
def test_export_and_load_give_back_every_bit(tmp_path: Path, changes: dict[str, object]) -> None:
    config = small_config(**changes)
    model = exported(tmp_path, config)
    loaded = load_huggingface(tmp_path)
    assert loaded.missing == loaded.unexpected == ()
    assert loaded.vocabulary == VOCABULARY
    added = {"vocab_size": V, "lowercase": True, "type_vocab_size": config.type_vocab_size or 1}
    assert loaded.config == config.model_copy(update=added)
    state_dict = model.state_dict()
    extra = set() if config.type_vocab_size else {"bert.embeddings.token_type_embeddings.weight"}
    assert set(loaded.state_dict) - set(state_dict) == extra
    assert all((loaded.state_dict[name] == 0).all() for name in extra)
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in state_dict.items())
    again = BertForPreTraining(loaded.config, V)
    again.load_state_dict(loaded.state_dict)


def test_padding_rows_are_not_exported(tmp_path: Path) -> None:
    model = exported(tmp_path, small_config())
    assert model.bert.embeddings.word_embeddings.weight.shape[0] % 8 == 0 != V % 8
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["bert.embeddings.word_embeddings.weight"].shape == (V, 64)


def test_exporting_again_replaces_and_keeps_other_files(tmp_path: Path) -> None:
    exported(tmp_path, small_config())
    (tmp_path / "README.md").write_text("mine")
    exported(tmp_path, small_config(num_hidden_layers=1))
    assert load_huggingface(tmp_path).config.num_hidden_layers == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip


def test_what_transformers_saves_loads_with_equal_scores(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    theirs = transformers.BertForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY.tokens))
    loaded = load_huggingface(tmp_path)
    assert loaded.missing == loaded.unexpected == ()
    ours = BertForPreTraining(loaded.config, V).eval()
    ours.load_state_dict(loaded.state_dict)
    batch = random_batch((5, 17, 9), V)
    rows = padded(batch)
    with torch.no_grad():
        wanted = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids).prediction_logits[rows.real]
        assert torch.allclose(ours.mlm_logits(ours.encode(batch)), wanted, rtol=1e-5, atol=1e-5)


def test_old_file_with_old_names_and_a_copied_decoder_loads(tmp_path: Path) -> None:
    model = exported(tmp_path, small_config())
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    old = {
        f"module.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    old["module.cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["module.bert.embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(old, tmp_path / "pytorch_model.bin")
    loaded = load_huggingface(tmp_path)
    assert loaded.missing == loaded.unexpected == ()
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


def test_encoder_alone_says_which_heads_it_lacks(tmp_path: Path) -> None:
    exported(tmp_path, small_config())
    tensors = load_file(tmp_path / "model.safetensors")
    alone = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file({**alone, "classifier.weight": torch.zeros(2, 64)}, tmp_path / "model.safetensors")
    loaded = load_huggingface(tmp_path)
    assert loaded.unexpected == ("classifier.weight",)
    assert len(loaded.missing) == 7
    assert all(name.startswith("cls.") for name in loaded.missing)


def test_rows_past_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    model = exported(tmp_path, small_config())
    tensors = load_file(tmp_path / "model.safetensors")
    words, bias = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
    tensors[words] = torch.cat([tensors[words], torch.ones(7, 64)])
    tensors[bias] = torch.cat([tensors[bias], torch.ones(7)])
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = load_huggingface(tmp_path).state_dict
    assert all(torch.equal(loaded[name], model.state_dict()[name]) for name in (words, bias))


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


def pickled(folder: Path, content: object) -> None:
    remove(folder, "model.safetensors")
    torch.save(content, folder / "pytorch_model.bin")


def configured(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


QUERY = "bert__encoder__layer__1__attention__self__query__weight"
BAD = {
    "config.json": lambda folder: remove(folder, "config.json"),
    "model.safetensors nor pytorch_model.bin": lambda folder: remove(folder, "model.safetensors"),
    "cut off": cut,
    "layer.1.attention.self.query.weight is missing": lambda folder: change_tensors(folder, **{QUERY: None}),
    "shape (3, 64), wanted (64, 64)": lambda folder: change_tensors(folder, **{QUERY: torch.zeros(3, 64)}),
    "decoder is the embedding": lambda f: change_tensors(f, cls__predictions__decoder__weight=torch.ones(V, 64)),
    "wanted a state dict": lambda folder: pickled(folder, [1, 2]),
    "plain weights": lambda folder: pickled(folder, Path()),
    "no bert.embeddings.word_embeddings.weight": lambda folder: pickled(folder, {"a": torch.zeros(1)}),
    "is_decoder": lambda folder: configured(folder, is_decoder=True),
    "layer.2.": lambda folder: configured(folder, num_hidden_layers=3),
    "the word embedding": lambda f: change_tensors(f, bert__embeddings__word_embeddings__weight=torch.zeros(9, 64)),
}


@pytest.mark.parametrize("told", BAD)
def test_damaged_directory_is_told_in_one_message(tmp_path: Path, told: str) -> None:
    exported(tmp_path, small_config())
    BAD[told](tmp_path)
    with pytest.raises((InputError, ConfigError)) as error:
        load_huggingface(tmp_path)
    assert told in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("attention", ["auto", "reference"])
def test_real_weights_give_equal_hidden_states_and_gradients(attention: AttentionName) -> None:
    folder = real_encoder()
    loaded = load_huggingface(folder)
    assert all(name.startswith("cls.") for name in loaded.missing)  # it is an encoder with a pooler
    ours = build_model(loaded.config, len(loaded.vocabulary.tokens), attention).eval()
    ours.load_state_dict(loaded.state_dict, strict=False)
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = random_batch((40, 128, 77), 30522)
    rows = padded(batch)
    wanted = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids).last_hidden_state[rows.real]
    found = ours.encode(batch)
    assert relative_error(found, wanted) < 1e-5
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    gradients = {name: part.grad for name, part in ours.bert.named_parameters() if not name.startswith("pooler.")}
    words = "embeddings.word_embeddings.weight"
    gradients[words] = gradients[words][:30522]
    assert largest_error(gradients, {name: part.grad for name, part in theirs.named_parameters()}) < 1e-4


def test_real_weights_give_the_same_losses_where_the_last_layer_is_pruned() -> None:
    loaded = load_huggingface(real_encoder())
    model = build_model(loaded.config, len(loaded.vocabulary.tokens)).eval()
    model.load_state_dict(loaded.state_dict, strict=False)
    batch = random_batch((40, 128, 77), 30522)
    with torch.no_grad():
        pruned = model(batch)
        model.prunes_last_layer = False
        whole = model(batch)
    assert relative_error(pruned.mlm_loss_sum, whole.mlm_loss_sum) < 1e-5
    assert relative_error(pruned.nsp_loss_sum, whole.nsp_loss_sum) < 1e-5
