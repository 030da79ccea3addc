"""Filling masks: the guesses against transformers', and every wrong call of the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from bert_pytorch.inference.fill_mask import MaskFiller
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.models.bert import BertForPreTraining
from tests.support.packed_batches import small_config
from tests.support.vocabularies import small_byte_bpe, small_vocabulary

VOCABULARY = small_vocabulary()
TEXT = "The capital of [MASK] is [MASK]."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_config(hidden_dropout_prob=0.5)
    model = BertForPreTraining(config, len(VOCABULARY.tokens), seed=4)
    path = tmp_path_factory.mktemp("model")
    export_huggingface(path, model.state_dict(), config, VOCABULARY)
    return path


@torch.no_grad()
def test_guesses_are_the_probabilities_transformers_gives(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = tokenizer(TEXT, return_tensors="pt")
    masked = inputs["input_ids"][0] == tokenizer.mask_token_id
    wanted = theirs(**inputs).logits[0, masked].softmax(-1).topk(4)
    found = MaskFiller.load(folder).fill(TEXT, top_k=4)
    assert len(found) == 2
    for ranked, ids, probabilities in zip(found, wanted.indices, wanted.values, strict=True):
        assert [guess.token for guess in ranked] == tokenizer.convert_ids_to_tokens(ids)
        assert [guess.probability for guess in ranked] == pytest.approx(probabilities.tolist(), rel=1e-4)


def test_all_guesses_together_have_probability_one(folder: Path) -> None:
    (ranked,) = MaskFiller.load(folder).fill("[MASK]", top_k=10_000)
    assert len(ranked) == len(VOCABULARY.tokens)
    assert sum(guess.probability for guess in ranked) == pytest.approx(1, abs=1e-5)


def test_table_is_readable(folder: Path, run) -> None:
    outcome = run("fill-mask", "--checkpoint", folder, "--top_k", "80", TEXT)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == TEXT
    assert [line.strip() for line in lines if "[MASK] " in line and line != TEXT] == ["[MASK] 1", "[MASK] 2"]
    assert any(line.endswith("%  …ing  (continues the word before)") for line in lines)
    assert not any("##" in line for line in lines)


def test_json_lines_hold_what_the_filler_gives(folder: Path, run) -> None:
    outcome = run("fill-mask", "--json", "--checkpoint", folder, "--top_k", "3", TEXT, "a [MASK]")
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert first["text"] == TEXT
    assert first["masks"] == [[guess._asdict() for guess in ranked] for ranked in MaskFiller.load(folder).fill(TEXT, 3)]
    assert len(second["masks"]) == 1


def test_lines_of_standard_input_are_texts(folder: Path, run) -> None:
    outcome = run("fill-mask", "--json", "--checkpoint", folder, stdin=f"{TEXT}\n\na [MASK]\n")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == [TEXT, "a [MASK]"]
    assert outcome.code == 0


def test_encoder_without_the_head_is_refused(folder: Path, tmp_path: Path, run) -> None:
    model = BertForPreTraining(small_config(), len(VOCABULARY.tokens))
    encoder = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    export_huggingface(tmp_path, encoder, small_config(), VOCABULARY)
    outcome = run("fill-mask", "--checkpoint", tmp_path, TEXT)
    assert outcome.code == 1
    assert "without a masked-LM head" in outcome.err


@torch.no_grad()
def test_byte_bpe_reads_either_spelling_of_its_mask(tmp_path: Path, run) -> None:
    model = BertForPreTraining(small_config(), len(small_byte_bpe().tokens), seed=4)
    export_huggingface(tmp_path, model.state_dict(), small_config(), small_byte_bpe())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer("the <mask> sings", return_tensors="pt")
    logits = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()(**inputs).logits
    wanted = logits[0, inputs["input_ids"][0] == tokenizer.mask_token_id].topk(3).indices[0]
    for text in ("the <mask> sings", "the [MASK] sings"):
        (ranked,) = MaskFiller.load(tmp_path).fill(text, top_k=3)
        assert [guess.token for guess in ranked] == tokenizer.convert_ids_to_tokens(wanted)
    outcome = run("fill-mask", "--checkpoint", tmp_path, "--top_k", "266", "the <mask> [MASK]")
    lines = [line.strip() for line in outcome.out.splitlines()]
    assert [line for line in lines if line.startswith("<mask>")] == ["<mask> 1", "<mask> 2"]
    assert {line.split("%  ")[1] for line in lines if "%" in line} >= {
        "the",
        "' '",
        "…ing  (continues the word before)",
    }
    outcome = run("fill-mask", "--checkpoint", tmp_path, "no mask")
    assert "has no <mask>: write <mask>, or [MASK], in capitals, where" in outcome.err


BAD = [
    (["fill-mask", "--checkpoint", "{}", "no mask"], "", 2, "has no [MASK]"),
    (["fill-mask", "--checkpoint", "{}", "a [mask]"], "", 2, "in capitals"),
    (["fill-mask", "--checkpoint", "{}", "a " * 60 + "[MASK]"], "", 2, "63 tokens, the model has positions for 40"),
    (["fill-mask", "--checkpoint", "{}"], "a [MASK]\nb\n", 1, "standard input, line 2"),
    (["fill-mask", "--checkpoint", "{}"], "", 1, "standard input is empty"),
    (["fill-mask", "--checkpoint", "{}/absent", TEXT], "", 1, "no such checkpoint"),
    (["fill-mask", "--checkpoint", "{}/vocab.txt", TEXT], "", 1, "not a checkpoint"),
    (["fill-mask", TEXT], "", 2, "--checkpoint is missing"),
    (["fill-mask", "--checkpoint", "{}", "--top_k", "0", TEXT], "", 2, "--top_k"),
    (["fill-mask", "--checkpoint", "{}", "--topk", "3", TEXT], "", 2, "did you mean --top_k"),
    (["fil-mask", TEXT], "", 2, "did you mean fill-mask"),
    ([TEXT], "", 2, "there is fill-mask"),
]


@pytest.mark.parametrize(("words", "stdin", "code", "told"), BAD, ids=[told for *_, told in BAD])
def test_wrong_call_is_told_in_one_message(folder: Path, run, words, stdin, code, told) -> None:
    outcome = run(*(word.replace("{}", str(folder)) for word in words), stdin=stdin)
    assert (outcome.code, outcome.err.count("error:")) == (code, 1)
    assert told in outcome.err
    assert "Traceback" not in outcome.err


def test_the_module_runs_and_lists_what_it_can_do(folder: Path) -> None:
    words = [sys.executable, "-W", "error::UserWarning", "-m", "bert_pytorch.predict"]
    result = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True)
    assert all(command in result.stdout for command in ("fill-mask", "answer", "tag", "classify", "embed"))
    assert not result.stderr
