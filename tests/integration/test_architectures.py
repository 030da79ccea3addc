"""Every architecture from shards to a folder that transformers opens, through run_pretraining.py."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from bert_pytorch.inference.fill_mask import MaskFiller
from tests.support.runs import metrics, pretrain_here

SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
SHAPES = {
    "roberta": {},
    "distilbert": {},
    "mosaic_bert": {},
    "modernbert": {"num_hidden_layers": 3, "local_attention": 16, "global_attn_every_n_layers": 2},
}


def written_shape(folder: Path, name: str) -> Path:
    path = folder / f"{name}.json"
    values = {"model_name": name, "model_type": name, "max_position_embeddings": 64, **SHAPE, **SHAPES[name]}
    path.write_text(json.dumps(values | {"attention_probs_dropout_prob": 0.0}))
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_an_architecture_pretrains_continues_and_opens_in_transformers(
    name: str, shards64: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = {
        "input_dir": shards64, "model_config_file": written_shape(tmp_path, name), "output_dir": run, "max_steps": 6,
        "learning_rate": 1e-2, "global_batch_size": 16, "local_batch_size": 8, "max_predictions_per_seq": 10,
        "optimizer": "adamw", "eval_interval": 6,
    }  # fmt: skip
    first = pretrain_here(**flags, steps=3)
    assert first.code == 0, first.err
    second = pretrain_here(**flags)
    assert second.code == 0, second.err
    losses = [row["mlm_loss"] for row in metrics(run, "train")]
    assert len(losses) == 6
    assert losses[-1] < losses[0]

    filler = MaskFiller.load(run)
    text = "the state of the [MASK] is strong"
    guesses = filler.fill(text, 5)[0]
    if name == "mosaic_bert":  # not in transformers: what was exported must load here
        assert MaskFiller.load(run / "model").fill(text, 5)[0] == guesses
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    theirs, information = transformers.AutoModelForMaskedLM.from_pretrained(run / "model", output_loading_info=True)
    assert not any(information.values()), information
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        scores = theirs.eval()(inputs["input_ids"], inputs["attention_mask"]).logits
    best = scores[0, inputs["input_ids"][0] == tokenizer.mask_token_id].softmax(-1).topk(5)
    assert [guess.token for guess in guesses] == tokenizer.convert_ids_to_tokens(best.indices[0])
    assert [guess.probability for guess in guesses] == pytest.approx(best.values[0].tolist(), rel=1e-5)


def test_another_architecture_does_not_continue_a_run(shards64: Path, tmp_path: Path) -> None:
    flags = {"input_dir": shards64, "output_dir": tmp_path / "run", "max_steps": 2, "global_batch_size": 4}
    assert pretrain_here(**flags, model_config_file=written_shape(tmp_path, "roberta"), steps=1).code == 0
    outcome = pretrain_here(**flags, model_config_file=written_shape(tmp_path, "distilbert"))
    assert outcome.code != 0
    assert "model_type" in outcome.err
