"""`python -m bert_pytorch.convert`: what goes in, what comes out, what is refused."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.build import build_model
from tests.support.data import real_encoder
from tests.support.packed_batches import padded, random_batch, small_config
from tests.support.runs import convert_here
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)


@pytest.fixture
def model() -> BertForPreTraining:
    return BertForPreTraining(small_config(vocab_size=V), seed=4).eval()


@pytest.fixture
def source(tmp_path: Path, model: BertForPreTraining) -> Path:
    export_huggingface(tmp_path / "source", model.state_dict(), model.config, VOCABULARY)
    return tmp_path / "source"


def same_weights(path: Path, model: BertForPreTraining) -> bool:
    loaded = load_source(path)
    assert (loaded.missing, loaded.unexpected, loaded.vocabulary) == ((), (), VOCABULARY)
    return all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in model.state_dict().items())


def change(source: Path, remove: str = "", **added: torch.Tensor) -> None:
    tensors = load_file(source / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not remove or not name.startswith(remove)}
    save_file(
        {**kept, **{name.replace("__", "."): tensor for name, tensor in added.items()}}, source / "model.safetensors"
    )


def test_a_round_trip_through_every_format_keeps_every_bit(
    tmp_path: Path, source: Path, model: BertForPreTraining
) -> None:
    steps = [("bert.pt", ()), ("nvidia", ("--to", "nvidia")), ("again.pt", ()), ("huggingface", ())]
    before = source
    for name, words in steps:
        result = convert_here(before, tmp_path / name, *words)
        assert result.code == 0, result.err
        assert str(tmp_path / name) in result.out
        assert "lacks" not in result.out
        assert same_weights(tmp_path / name, model)
        before = tmp_path / name


@pytest.mark.parametrize(
    "family",
    [
        {"model_type": "roberta", "type_vocab_size": 0},
        {"model_type": "distilbert", "type_vocab_size": 0},
        {"model_type": "mosaic_bert"},
        {"model_type": "modernbert", "type_vocab_size": 0, "local_attention": 6},
    ],
)
def test_other_architectures_and_byte_level_bpe_come_through_a_checkpoint(
    tmp_path: Path, family: dict[str, object]
) -> None:
    vocabulary = small_byte_bpe()
    size = len(vocabulary.tokens)
    model = build_model(small_config(vocab_size=size, next_sentence=False, **family), seed=4)
    export_huggingface(tmp_path / "source", model.state_dict(), model.config, vocabulary)
    assert convert_here(tmp_path / "source", tmp_path / "own.pt").code == 0
    assert convert_here(tmp_path / "own.pt", tmp_path / "hf").code == 0
    for path in (tmp_path / "own.pt", tmp_path / "hf"):
        found = load_source(path)
        assert (found.missing, found.unexpected, found.vocabulary) == ((), (), vocabulary)
        assert found.config.model_type == family["model_type"]
        assert all(torch.equal(found.state_dict[name], tensor) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_a_checkpoint_becomes_a_model_that_transformers_computes_alike(
    tmp_path: Path, source: Path, model: BertForPreTraining
) -> None:
    assert convert_here(source, tmp_path / "bert.pt").code == 0
    assert convert_here(tmp_path / "bert.pt", tmp_path / "hf").code == 0
    batch = random_batch((5, 17, 9), V)
    rows = padded(batch)
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, "token_type_ids": rows.token_type_ids}
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    ours = model.encode(batch)
    assert torch.allclose(theirs(**inputs).logits[rows.real], model.mlm_logits(ours), rtol=1e-5, atol=1e-5)
    encoder = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    assert torch.allclose(encoder(**inputs).last_hidden_state[rows.real], ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["bert.pt", "hf", "nvidia"])
def test_an_encoder_without_heads_is_converted_and_what_it_lacks_is_said(
    tmp_path: Path, source: Path, target: str
) -> None:
    change(source, remove="cls.")
    words = ("--to", "nvidia") if target == "nvidia" else ()
    result = convert_here(source, tmp_path / target, *words)
    assert (result.code, "lacks, as its source: masked-LM head, next-sentence head\n" in result.out) == (0, True)
    assert {name.split(".")[0] for name in load_source(tmp_path / target).missing} == {"cls"}


@torch.no_grad()
def test_a_real_encoder_comes_back_as_it_was(tmp_path: Path) -> None:
    source = real_encoder()
    result = convert_here(source, tmp_path / "minilm.pt")
    assert (result.code, "lacks, as its source: masked-LM head, next-sentence head" in result.out) == (0, True)
    assert convert_here(tmp_path / "minilm.pt", tmp_path / "hf").code == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == ["BertModel"]
    text = ["A sentence about tachycardia.", "Another one, longer: naïve cafés!"]
    outputs = []
    for folder in (source, tmp_path / "hf"):
        tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, padding=True, return_tensors="pt")
        model, said = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
        assert not said["missing_keys"]
        outputs.append(model.eval()(**tokens))
    assert torch.equal(outputs[0].last_hidden_state, outputs[1].last_hidden_state)
    assert torch.equal(outputs[0].pooler_output, outputs[1].pooler_output)


def test_unexpected_weights_are_listed_and_left_out_only_when_allowed(tmp_path: Path, source: Path) -> None:
    change(source, classifier__weight=torch.zeros(2, 64), classifier__bias=torch.zeros(2))
    refused = convert_here(source, tmp_path / "out")
    assert refused.code == 1
    assert "2 weights have no place" in refused.err
    assert "classifier.bias, classifier.weight" in refused.err
    assert not (tmp_path / "out").exists()
    assert convert_here(source, tmp_path / "out", "--allow_unexpected").code == 0
    assert load_source(tmp_path / "out").unexpected == ()


def test_missing_weights_are_listed_and_initialised_only_when_allowed(
    tmp_path: Path, source: Path, model: BertForPreTraining
) -> None:
    change(source, remove="bert.encoder.layer.1.output.dense.")
    refused = convert_here(source, tmp_path / "out.pt")
    assert refused.code == 1
    assert "bert.encoder.layer.1.output.dense.weight is missing" in refused.err
    allowed = convert_here(source, tmp_path / "out.pt", "--allow_missing")
    assert (allowed.code, "layer.1.output.dense.bias" in allowed.out) == (0, True)
    found = load_source(tmp_path / "out.pt")
    assert found.missing == ()
    weight = found.state_dict["bert.encoder.layer.1.output.dense.weight"]
    assert 0.15 < weight.std() < 0.25  # initializer_range 0.2
    assert torch.equal(found.state_dict["cls.predictions.bias"], model.cls.predictions.bias)


def test_what_is_there_already_is_replaced_only_when_asked(tmp_path: Path, source: Path) -> None:
    for target in ("bert.pt", "hf"):
        assert convert_here(source, tmp_path / target).code == 0
        refused = convert_here(source, tmp_path / target)
        assert (refused.code, "--overwrite" in refused.err) == (1, True)
        assert convert_here(source, tmp_path / target, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("a",), "wanted two paths, SRC and DST, found 1"),
        (("a", "b", "c"), "found 3"),
        (("a", "b", "--to", "onnx"), "wanted a name that ends in .onnx"),
        (("a", "b.pt", "--to", "huggingface"), "name a folder"),
        (("a", "b", "--to", "tensorflow"), "--to"),
    ],
)
def test_wrong_words_are_told(words: tuple[str, ...], told: str) -> None:
    result = convert_here(*words)
    assert (result.code, told in result.err) == (2, True), result.err


def test_a_source_that_is_none_is_told_in_one_message(tmp_path: Path) -> None:
    result = convert_here(tmp_path / "nothing", tmp_path / "out")
    assert (result.code, result.err.count("error:")) == (1, 1)
    assert not (tmp_path / "out").exists()
