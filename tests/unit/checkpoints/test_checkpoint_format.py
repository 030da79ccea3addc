"""Entries of a checkpoint: round trip through a file, and a message for each one that is missing or wrong."""

import pytest
import torch

from bert_pytorch.checkpoints.format import (
    FORMAT_VERSION,
    Checkpoint,
    DataPosition,
    vocabulary_entries,
    weights_from_dict,
)
from bert_pytorch.errors import InputError
from tests.support.vocabularies import small_byte_bpe, small_vocabulary


def checkpoint():
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return Checkpoint(
        model={"weight": parameter.detach()},
        model_config={"hidden_size": 2, "hidden_act": "gelu"},
        vocabulary=["[PAD]", "[UNK]", "ä"],
        lowercase=True,
        step=7,
        phase=1,
        phase_start=5,
        phase_end=False,
        data_position=DataPosition(seed=42, epoch=1, samples=96),
        optimizer=optimizer.state_dict(),
        scaler={"scale": 65536.0, "_growth_tracker": 3},
        choices={"attention": "sdpa", "micro_batch_size": 16},
        run_config={"learning_rate": 1e-3, "seed": 42, "eval_dir": None},
    )


def test_round_trip_through_a_safely_loaded_file(tmp_path):
    saved = checkpoint()
    torch.save(saved.to_dict(), tmp_path / "ckpt_7.pt")
    loaded = Checkpoint.from_dict(torch.load(tmp_path / "ckpt_7.pt", weights_only=True), "ckpt_7.pt")
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    moments = loaded.optimizer["state"][0]["exp_avg"], saved.optimizer["state"][0]["exp_avg"]
    assert torch.equal(*moments)
    plain = [field for field in Checkpoint._fields if field not in ("model", "optimizer")]
    assert [getattr(loaded, field) for field in plain] == [getattr(saved, field) for field in plain]


def test_contracted_entries_are_in_the_file():
    wanted = "model optimizer step phase phase_start data_position model_config vocabulary lowercase format_version"
    assert set(wanted.split()) <= set(checkpoint().to_dict())


def test_weights_alone_need_neither_optimizer_nor_data_position():
    values = checkpoint().to_dict()
    names = ("model", "model_config", "vocabulary", "lowercase", "format_version")
    weights = weights_from_dict({name: values[name] for name in names}, "ckpt_7.pt")
    assert weights.model_config == {"hidden_size": 2, "hidden_act": "gelu"}
    assert weights.tokenizer_vocabulary().id_of("ä") == 2


@pytest.mark.parametrize(
    "vocabulary", [small_vocabulary(), small_byte_bpe(), small_byte_bpe(lowercase=True, add_prefix_space=False)]
)
def test_a_vocabulary_of_either_kind_comes_back(vocabulary, tmp_path):
    torch.save(checkpoint()._replace(**vocabulary_entries(vocabulary)).to_dict(), tmp_path / "ckpt_7.pt")
    values = torch.load(tmp_path / "ckpt_7.pt", weights_only=True)
    assert Checkpoint.from_dict(values, "ckpt_7.pt").tokenizer_vocabulary() == vocabulary
    assert weights_from_dict(values, "ckpt_7.pt").tokenizer_vocabulary() == vocabulary


def test_a_file_from_before_byte_bpe_is_wordpiece():
    values = checkpoint().to_dict()
    del values["merges"], values["add_prefix_space"]
    assert Checkpoint.from_dict(values, "x").tokenizer_vocabulary().kind == "wordpiece"


def test_merges_that_join_no_tokens_are_named():
    entries = {**vocabulary_entries(small_byte_bpe()), "merges": ["Ġ nonsense"]}
    with pytest.raises(InputError, match=r'"merges": the merge .*nonsense'):
        weights_from_dict(checkpoint()._replace(**entries).to_dict(), "ckpt_7.pt")


def test_unknown_entries_are_ignored():
    assert Checkpoint.from_dict({**checkpoint().to_dict(), "preconditioner": {}}, "x").step == 7


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "model_config",
        "vocabulary",
        "lowercase",
        "step",
        "phase",
        "phase_start",
        "phase_end",
        "data_position",
        "optimizer",
    ],
)
def test_missing_entry_is_named(name):
    values = checkpoint().to_dict()
    del values[name]
    with pytest.raises(InputError, match=rf'^run/ckpt_7\.pt: "{name}" is missing\. Name a'):
        Checkpoint.from_dict(values, "run/ckpt_7.pt")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("model", {"weight": [1.0]}),
        ("model", torch.ones(2)),
        ("model_config", "bert"),
        ("vocabulary", ["[PAD]", 1]),
        ("vocabulary", ("[PAD]",)),
        ("lowercase", 1),
        ("merges", [("a", "b")]),
        ("add_prefix_space", 1),
        ("step", 7.0),
        ("step", -1),
        ("phase_start", None),
        ("phase", True),
        ("phase_end", None),
        ("data_position", {"seed": 1, "epoch": 2}),
        ("data_position", {"seed": 1, "epoch": 2, "samples": -1}),
        ("optimizer", {"state": {}}),
    ],
)
def test_wrongly_typed_entry_is_named(name, wrong):
    with pytest.raises(InputError, match=rf'"{name}" is .*, wanted '):
        Checkpoint.from_dict({**checkpoint().to_dict(), name: wrong}, "ckpt_7.pt")


def test_all_problems_are_told_at_once():
    values = {**checkpoint().to_dict(), "step": "seven", "lowercase": "yes"}
    del values["model"]
    with pytest.raises(InputError, match=r'"model" is missing; "lowercase" is a str, .*; "step" is a str, '):
        Checkpoint.from_dict(values, "ckpt_7.pt")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None])
def test_other_format_version_is_refused(version):
    with pytest.raises(InputError, match=r"format_version is .*, this version of bert_pytorch reads 1"):
        Checkpoint.from_dict({**checkpoint().to_dict(), "format_version": version}, "ckpt_7.pt")


@pytest.mark.parametrize("foreign", [{"model": {}, "epoch": 3}, {}, [1, 2], torch.ones(2)])
def test_foreign_content_is_refused(foreign):
    with pytest.raises(InputError, match="not a checkpoint of bert_pytorch"):
        weights_from_dict(foreign, "ckpt_7.pt")
