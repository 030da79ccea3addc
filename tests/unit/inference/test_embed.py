"""Embeddings against sentence-transformers and transformers, with real weights; batches, processes and files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.models.bert import BertForPreTraining
from tests.support.data import REPOSITORY, real_encoder
from tests.support.packed_batches import small_config
from tests.support.vocabularies import small_vocabulary

TEXTS = ["The capital of France is Paris.", "", "short", "A longer sentence, about nothing in particular at all. " * 3]
VOCABULARY = small_vocabulary()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = BertForPreTraining(small_config(), len(VOCABULARY.tokens), seed=4)
    path = tmp_path_factory.mktemp("model")
    export_huggingface(path, model.state_dict(), small_config(), VOCABULARY)
    return path


def embeddings(out: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in out.splitlines()])


@pytest.mark.parametrize("normalize", [True, False])
def test_means_of_real_weights_are_those_of_sentence_transformers(normalize: bool, run) -> None:
    whole = sentence_transformers.SentenceTransformer(str(real_encoder()), device="cpu")
    theirs = sentence_transformers.SentenceTransformer(modules=[whole[0], whole[1]], device="cpu")  # not its Normalize
    wanted = theirs.encode(TEXTS, normalize_embeddings=normalize)
    words = ["--normalize"] if normalize else ["--no-normalize"]
    outcome = run("embed", "--checkpoint", real_encoder(), *words, *TEXTS)
    assert outcome.code == 0
    np.testing.assert_allclose(embeddings(outcome.out), wanted, atol=2e-6)


@torch.no_grad()
def test_cls_pooling_is_the_first_hidden_state(folder: Path, run) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ["the capital of france", "paris ."]
    wanted = [theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].numpy() for text in texts]
    outcome = run("embed", "--checkpoint", folder, "--pooling", "cls", "--no-normalize", *texts)
    np.testing.assert_allclose(embeddings(outcome.out), np.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_batches_and_processes_give_what_each_text_gives_alone(pooling: str, folder: Path, tmp_path: Path, run) -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(["the", "capital", "of", "rome", "x"], rng.integers(0, 9))) for _ in range(1200)]
    path, options = tmp_path / "texts.txt", ["--checkpoint", folder, "--pooling", pooling]
    path.write_text("\n".join([*texts, ""]))
    alone = embeddings(run("embed", *options, "--max_tokens", "1", "--input_file", path).out)
    together = embeddings(run("embed", *options, "--input_file", path).out)
    processes = ["--processes", "2"] if pooling == "mean" else []
    spread = run("embed", *options, *processes, "--output_file", tmp_path / "out.npy", "--input_file", path)
    assert (spread.code, spread.out) == (0, "")
    assert alone.shape == (1200, 64)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy", allow_pickle=False), alone, atol=1e-6)


def test_files_appear_whole_or_not_at_all(folder: Path, tmp_path: Path, run) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(b"the\n" * 600 + b"\xff\n")
    for name in ("out.npy", "out.jsonl"):
        outcome = run("embed", "--checkpoint", folder, "--output_file", tmp_path / name, "--input_file", texts)
        assert outcome.code == 1
        assert "line 601: it is not UTF-8" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_a_text_too_long_is_refused_or_cut_and_told(folder: Path, run, caplog: pytest.LogCaptureFixture) -> None:
    options, long = ["--checkpoint", folder, "--no-normalize"], "the " * 60
    outcome = run("embed", *options, "paris", long)
    assert outcome.code == 1
    assert "text 2: it has 62 tokens, the model has positions for 40" in outcome.err
    assert "--truncate" in outcome.err
    cut = run("embed", *options, "--truncate", "paris", long)
    assert "text 2: cut from 62 tokens to 40" in caplog.text
    assert embeddings(cut.out)[1] == pytest.approx(embeddings(run("embed", *options, "the " * 38).out)[0], abs=1e-6)


def test_what_is_typed_is_answered_line_by_line(folder: Path, run) -> None:
    outcome = run("embed", "--checkpoint", folder, stdin="the\n\n" + "the " * 60 + "\nparis\n", typed=True)
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["the", "paris"]
    assert outcome.err.count("text> ") == 5
    assert outcome.err.count("error:") == 1
    assert outcome.code == 0


def test_a_pipe_is_answered_line_by_line_where_that_is_asked_for(folder: Path) -> None:
    argv = [sys.executable, "-m", "bert_pytorch.predict", "embed", "--checkpoint", folder, "--block_texts", "1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("the", "paris"):  # the second is written when the first is answered
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait() == 0


BAD = [
    (["embed", "--checkpoint", "{}/absent", "a"], 1, "no such checkpoint"),
    (["embed", "a"], 2, "--checkpoint is missing"),
    (["embed", "--checkpoint", "{}", "--pooling", "max", "a"], 2, "--pooling"),
    (["embed", "--checkpoint", "{}", "--device", "cuda", "--processes", "2", "a"], 2, "--processes 2"),
    (["embed", "--checkpoint", "{}", "--input_file", "{}/absent.txt"], 1, "no such file"),
    (["embed", "--checkpoint", "{}"], 1, "standard input is empty"),
]


@pytest.mark.parametrize(("words", "code", "told"), BAD, ids=[told for *_, told in BAD])
def test_a_wrong_call_is_told_in_one_message(folder: Path, run, words, code, told) -> None:
    outcome = run(*(word.replace("{}", str(folder)) for word in words))
    assert (outcome.code, outcome.err.count("error:")) == (code, 1)
    assert told in outcome.err
