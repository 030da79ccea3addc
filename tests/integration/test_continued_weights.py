"""Pretraining that goes on from others' weights: NVIDIA's files, grown vocabularies, a corpus without pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_pytorch import convert
from bert_pytorch.corpus.__main__ import main as corpus_main
from bert_pytorch.interop.sources import load_source
from bert_pytorch.vocabulary import extends, read_vocabulary
from tests.support.data import shared_data
from tests.support.runs import metrics, pretrain_here, run_here

FLAGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "global_batch_size": 8,
    "local_batch_size": 8,
    "max_predictions_per_seq": 10,
    "seed": 11,
    "max_steps": 2,
}


@pytest.fixture(scope="module")
def trained(shards64: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a little on pairs, and write the result in NVIDIA's layout beside the run."""
    run = tmp_path_factory.mktemp("trained") / "run"
    outcome = pretrain_here(**FLAGS, input_dir=shards64, model_config_file=tiny_model, output_dir=run)
    assert outcome.code == 0, outcome.err
    assert convert.main([str(run), str(run.parent / "nvidia"), "--to", "nvidia"]) == 0
    return run


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Format film reviews: another field than the presidents' of `shards64`."""
    folder = tmp_path_factory.mktemp("reviews")
    inputs = [str(path) for path in sorted(shared_data("text", "movie_reviews").glob("*.txt"))[:12]]
    assert run_here(corpus_main, ["format", "--input", *inputs, "--output", str(folder)]).code == 0
    return folder


def encoded(text: Path, vocabulary: Path, folder: Path) -> Path:
    words = ["--sequences", "full_sentences", "--short_seq_prob", "0", "--max_seq_len", "64", "--eval_fraction", "0.2"]
    outcome = run_here(
        corpus_main, ["encode", "--input", str(text), "--output", str(folder), "--vocab_file", str(vocabulary), *words]
    )
    assert outcome.code == 0, outcome.err
    return next(folder.glob("sequences_*"))


@pytest.mark.parametrize("named", ["folder", "file", "file_alone"])
def test_nvidias_weights_begin_at_the_loss_they_had(
    named: str, trained: Path, tiny_model: Path, shards64: Path, tmp_path: Path
) -> None:
    nvidia = trained.parent / "nvidia"
    given: dict[str, Any] = {"init_checkpoint": nvidia if named == "folder" else nvidia / "ckpt_0.pt"}
    if named == "file_alone":
        (tmp_path / "bert.pt").write_bytes((nvidia / "ckpt_0.pt").read_bytes())
        given = {
            "init_checkpoint": tmp_path / "bert.pt",
            "model_config_file": tiny_model,
            "vocab_file": shared_data("vocab", "bert-base-uncased-vocab.txt"),
        }
    outcome = pretrain_here(**FLAGS, **given, input_dir=shards64, output_dir=tmp_path / "run")
    assert outcome.code == 0, outcome.err
    wanted = metrics(trained, "eval")[-1]["mlm_loss"]
    assert metrics(tmp_path / "run", "eval")[0]["mlm_loss"] == pytest.approx(wanted, rel=1e-6)


def test_nvidias_weights_alone_ask_for_their_shape_and_vocabulary(
    trained: Path, shards64: Path, tmp_path: Path
) -> None:
    (tmp_path / "bert.pt").write_bytes((trained.parent / "nvidia" / "ckpt_0.pt").read_bytes())
    outcome = pretrain_here(
        **FLAGS, init_checkpoint=tmp_path / "bert.pt", input_dir=shards64, output_dir=tmp_path / "run"
    )
    assert outcome.code == 2
    assert "--model_config_file" in outcome.err
    assert "--vocab_file" in outcome.err


@pytest.mark.parametrize("written", ["nvidia", "bert.pt"])
def test_a_second_phase_takes_weights_without_moments(
    written: str, trained: Path, shards128: Path, tmp_path: Path
) -> None:
    given = trained.parent / "nvidia" / "ckpt_0.pt"
    if written == "bert.pt":
        given = tmp_path / written
        assert convert.main([str(trained), str(given)]) == 0
    phase = {"previous_phase_end_step": 2, "init_checkpoint": given}
    outcome = pretrain_here(**FLAGS, **phase, input_dir=shards128, output_dir=tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "its weights are taken, moments start at zero" in outcome.out + outcome.err
    assert [row["step"] for row in metrics(tmp_path / "run", "train")] == [3, 4]


def test_a_grown_vocabulary_continues_an_encoder_and_goes_on_after_a_stop(
    trained: Path, text: Path, tmp_path: Path
) -> None:
    model, vocab = trained / "model", tmp_path / "vocab"
    words = ["--input", str(text), "--extend", str(model), "--vocab_size", "30700", "--output", str(vocab)]
    assert run_here(corpus_main, ["vocab", *words]).code == 0
    shards = encoded(text, vocab, tmp_path / "encoded")
    flags = {**FLAGS, "init_checkpoint": model, "input_dir": shards, "output_dir": tmp_path / "run", "max_steps": 3}
    assert pretrain_here(**flags, dry_run=True).code == 0
    first = pretrain_here(**flags, steps=1)
    assert first.code == 0, first.err
    assert "30,522 tokens of the weights, 178 new ones of the corpus" in first.out
    assert "next-sentence task: none" in first.out
    second = pretrain_here(**flags)
    assert second.code == 0, second.err
    losses = [row["mlm_loss"] for row in metrics(tmp_path / "run", "eval")]
    assert losses[0] < 10.4  # log(30700) is 10.33; rows at random would be wide of it
    grown, before = load_source(tmp_path / "run" / "model"), read_vocabulary(model)
    assert extends(grown.vocabulary, before)
    assert len(grown.vocabulary.tokens) == 30700
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    assert torch.isfinite(grown.state_dict["bert.embeddings.word_embeddings.weight"]).all()


def test_a_vocabulary_that_contradicts_the_weights_is_refused(trained: Path, text: Path, tmp_path: Path) -> None:
    words = ["--input", str(text), "--vocab_size", "500", "--output", str(tmp_path / "vocab")]
    assert run_here(corpus_main, ["vocab", *words]).code == 0
    shards = encoded(text, tmp_path / "vocab", tmp_path / "encoded")
    outcome = pretrain_here(**FLAGS, init_checkpoint=trained, input_dir=shards, output_dir=tmp_path / "run")
    assert outcome.code == 2
    assert "nor the beginning of it" in outcome.err
    assert "corpus vocab --extend" in outcome.err


def test_a_models_name_without_a_network_says_how_to_fetch_it(
    shards64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = "google-bert/bert-base-uncased"
    outcome = pretrain_here(**FLAGS, init_checkpoint=name, input_dir=shards64, output_dir=tmp_path / "run")
    assert outcome.code == 1
    assert f"corpus download huggingface_bert --name {name}" in outcome.err
