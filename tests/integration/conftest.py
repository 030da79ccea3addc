"""A small real corpus and tiny honest models, shared by all integration tests of a session."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bert_pytorch.corpus.__main__ import main as corpus_main
from tests.support.data import shared_data
from tests.support.runs import run_here


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encode presidents' addresses with the real 30,522-token vocabulary: lengths 64 and 128, pairs, dynamic masks."""
    folder = tmp_path_factory.mktemp("corpus")
    text = folder / "text"
    text.mkdir()
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:12]:
        (text / path.name).write_bytes(path.read_bytes())
    formatted, out = folder / "formatted", folder / "encoded"
    for command in (
        ["format", "--input", str(text), "--output", str(formatted)],
        [
            "encode", "--input", str(formatted), "--output", str(out), "--max_seq_len", "64", "128",
            "--vocab_file", str(shared_data("vocab", "bert-base-uncased-vocab.txt")), "--eval_fraction", "0.1",
        ],
    ):  # fmt: skip
        outcome = run_here(corpus_main, command)
        assert outcome.code == 0, outcome.err
    return out


@pytest.fixture(scope="session")
def shards64(encoded: Path) -> Path:
    """Shards of length 64."""
    return encoded / "sequences_lowercase_max_seq_len_64_next_seq_task_true"


@pytest.fixture(scope="session")
def shards128(encoded: Path) -> Path:
    """Shards of length 128."""
    return encoded / "sequences_lowercase_max_seq_len_128_next_seq_task_true"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Describe a model of two layers with the real vocabulary."""
    path = tmp_path_factory.mktemp("models") / "tiny.json"
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 128, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    path.write_text(json.dumps(shape))
    return path


@pytest.fixture(scope="session")
def still_model(tiny_model: Path) -> Path:
    """Describe the same without dropout: its losses do not depend on how an update is cut."""
    path = tiny_model.with_name("still.json")
    path.write_text(json.dumps({**json.loads(tiny_model.read_text()), "hidden_dropout_prob": 0.0}))
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bitwise comparisons want a fixed number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
