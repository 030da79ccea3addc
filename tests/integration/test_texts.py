"""Training on raw text as a user runs it: as on shards of its sequences, tokenized once for all ranks and starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from bert_pytorch.records import SequenceRows
from bert_pytorch.shards.writing import write_shard
from tests.support.data import real_texts, shared_data
from tests.support.runs import (
    assert_same_state,
    checkpoint,
    metrics,
    pretrain_here,
    pretraining_command,
    run_program,
)
from tests.support.text_tables import write_dataset_dictionary, write_parquet

LENGTH = 64
FILES = 4
KEYS = ("step", "loss", "mlm_loss", "learning_rate", "grad_norm")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text(
        '{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, '
        '"max_position_embeddings": 64, "attention_probs_dropout_prob": 0.0, "next_sentence": false}'
    )
    return path


@pytest.fixture
def flags(model: Path) -> dict[str, Any]:
    return {
        "model_config_file": model, "vocab_file": vocabulary(), "global_batch_size": 12, "local_batch_size": 5,
        "max_steps": 3, "learning_rate": 5e-3, "seed": 11, "log_prefix": "log",
    }  # fmt: skip


def vocabulary() -> Path:
    return shared_data("vocab", "bert-base-uncased-vocab.txt")


def write_same_shard(path: Path, texts: list[str]) -> None:
    """Write the sequences that the documentation promises, made by Hugging Face's tokenizer, as a shard."""
    tokenizer = tokenizers.BertWordPieceTokenizer(str(vocabulary()), lowercase=True)
    rows: list[list[int]] = []
    for text in texts:
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        rows += [[101, *piece, 102] for piece in np.array_split(ids, -(-len(ids) // (LENGTH - 2)))]
    input_ids = np.zeros((len(rows), LENGTH), np.int32)
    for number, row in enumerate(rows):
        input_ids[number, : len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int32)
    path.parent.mkdir()
    write_shard(path, SequenceRows(input_ids, lengths, lengths, None, None), {})


def test_training_on_text_is_training_on_shards_of_its_sequences(
    flags: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    texts = real_texts("inaugural", FILES + 1)
    write_parquet(tmp_path / "texts" / "train-0.parquet", texts[:FILES], rows=2)
    write_parquet(tmp_path / "texts" / "validation-0.parquet", texts[FILES:])
    write_same_shard(tmp_path / "shards" / "train_0.hdf5", texts[:FILES])
    write_same_shard(tmp_path / "eval" / "eval_0.hdf5", texts[FILES:])
    on_shards = {"input_dir": tmp_path / "shards", "eval_dir": tmp_path / "eval"}
    on_texts = {"input_dir": tmp_path / "texts", "max_seq_len": LENGTH}
    for name, source in (("shards", on_shards), ("texts", on_texts)):
        outcome = pretrain_here(**flags, **source, output_dir=tmp_path / f"run_{name}")
        assert outcome.code == 0, outcome.err
    for event in ("train", "eval"):
        one, other = (metrics(tmp_path / f"run_{name}", event) for name in ("shards", "texts"))
        assert [row["step"] for row in one] == ([1, 2, 3] if event == "train" else [0, 3])
        for first, second in zip(one, other, strict=True):
            assert [first.get(key) for key in KEYS] == [second.get(key) for key in KEYS]
    states = [checkpoint(tmp_path / f"run_{name}", 3)["model"] for name in ("shards", "texts")]
    assert_same_state(*states)

    made = {file.name: file.stat().st_ino for file in cache.glob("*.tokens")}
    assert len(made) == 2
    log = tmp_path / "run_texts" / "log.txt"
    assert log.read_text().count("tokenizing") == 2
    again = pretrain_here(**{**flags, "max_steps": 5}, **on_texts, output_dir=tmp_path / "run_texts")
    assert again.code == 0, again.err
    assert log.read_text().count("tokenizing") == 2, "the second start tokenized again"
    assert {file.name: file.stat().st_ino for file in cache.glob("*.tokens")} == made


def test_two_ranks_tokenize_once_and_a_dry_run_or_an_evaluation_needs_no_training(
    flags: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    texts = real_texts("inaugural", FILES)
    folder = write_dataset_dictionary(tmp_path / "texts", train=texts[:-1], validation=texts[-1:])
    source = {"input_dir": folder, "max_seq_len": LENGTH}
    dry = pretrain_here(**flags, **source, dry_run=True)
    assert dry.code == 0, dry.err
    assert "tokenized at the first start, not now" in dry.out
    assert not cache.exists()

    run = tmp_path / "run"
    program = pretraining_command(**flags, **source, output_dir=run)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    both = run_program([program[0], *launcher, *program[1:]], BERT_PYTORCH_CACHE=str(cache))
    assert both.code == 0, both.err
    assert [row["step"] for row in metrics(run, "train")] == [1, 2, 3]
    assert len(list(cache.glob("*.tokens"))) == 2
    assert (both.out + both.err).count("MB of text to about") <= 2

    torch.manual_seed(0)
    only = pretrain_here(
        init_checkpoint=run / "model", eval_dir=folder, max_seq_len=LENGTH, max_steps=0, local_batch_size=5
    )
    assert only.code == 0, only.err
    assert f"held-out mlm_loss {metrics(run, 'eval')[-1]['mlm_loss']:.4f}" in only.out + only.err


def test_what_is_missing_is_one_message(flags: dict[str, Any], tmp_path: Path) -> None:
    texts = write_parquet(tmp_path / "texts.parquet", ["Fellow citizens of the Senate."])
    write_same_shard(tmp_path / "shards" / "train_0.hdf5", ["Fellow citizens"])
    (tmp_path / "texts.txt").write_text("Fellow citizens")
    cases = [
        ({"input_dir": texts, "max_seq_len": 64, "vocab_file": None}, "--vocab_file: it is missing"),
        ({"input_dir": texts}, "--max_seq_len: it is missing"),
        ({"input_dir": texts, "max_seq_len": 2}, "--max_seq_len: found '2', wanted a whole number ≥ 3"),
        ({"input_dir": texts, "max_seq_len": 65}, "the model has 64 positions"),
        ({"input_dir": texts, "max_seq_len": 64, "text_column": "body"}, 'no column "body"'),
        ({"input_dir": texts, "max_seq_length": 64}, "--max_seq_len"),
        ({"input_dir": tmp_path / "shards", "max_seq_len": 64}, "--max_seq_len: the data are shards"),
        ({"input_dir": tmp_path / "texts.txt", "max_seq_len": 64}, "texts.txt: it is plain text"),
    ]
    for changed, message in cases:
        said = pretrain_here(**{**flags, **changed}, output_dir=tmp_path / "run")
        assert said.code in (1, 2), message
        assert message in said.err
        assert "Traceback" not in said.err
