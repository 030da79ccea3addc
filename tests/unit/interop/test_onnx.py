"""The ONNX graph in onnxruntime, at sizes it was not exported at; a graph that computes something else is caught."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers

from bert_pytorch.errors import BertPytorchError, MissingDependencyError
from bert_pytorch.interop import onnx as interop_onnx
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.onnx import PaddedModel, check_onnx, export_onnx
from bert_pytorch.interop.sources import LoadedModel
from bert_pytorch.models.build import build_model
from bert_pytorch.models.pretraining import PretrainingModel
from tests.support.packed_batches import PaddedBatch, padded, random_batch, small_config
from tests.support.runs import convert_here
from tests.support.vocabularies import small_vocabulary

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime (requirements-extras.txt) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (requirements-extras.txt) is not installed")

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)
MODERN = {
    "model_type": "modernbert",
    "num_hidden_layers": 2,
    "local_attention": 6,
    "next_sentence": False,
    "type_vocab_size": 0,
}
"""All that is hard: rotary positions, windows, gates, no biases."""


def small_model(**changes: Any) -> PretrainingModel:
    return build_model(small_config(vocab_size=V, **changes), seed=4).eval()


def run_onnx(path: Path, rows: PaddedBatch) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, "token_type_ids": rows.token_type_ids}
    found = session.run(None, {name: value.long().numpy() for name, value in inputs.items()})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


@torch.no_grad()
def test_a_converted_bert_computes_in_onnxruntime_what_transformers_does(tmp_path: Path) -> None:
    model = small_model()
    export_huggingface(tmp_path / "hf", model.state_dict(), model.config, VOCABULARY)
    result = convert_here(tmp_path / "hf", tmp_path / "bert.onnx")
    assert (result.code, "onnxruntime computes the same to" in result.out) == (0, True), result.err
    assert [path.name for path in tmp_path.glob("*.onnx*")] == ["bert.onnx"]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    for lengths in ((5, 17, 9), (40,), (1, 1, 1, 1, 2)):
        rows = padded(random_batch(lengths, V))
        wanted = theirs(rows.input_ids, rows.attention_mask, rows.token_type_ids, output_hidden_states=True)
        found = run_onnx(tmp_path / "bert.onnx", rows)
        assert found["logits"].shape == (len(lengths), max(lengths), V)
        for name, tensor in (("logits", wanted.logits), ("last_hidden_state", wanted.hidden_states[-1])):
            assert np.allclose(found[name][rows.real], tensor[rows.real], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_windows_and_rotary_positions_are_exported_and_padding_stays_finite(tmp_path: Path) -> None:
    model = small_model(**MODERN)
    loaded = LoadedModel(model, VOCABULARY, ("cls.predictions.bias",))
    assert "the same" in export_onnx(tmp_path / "modern.onnx", loaded)
    batch = random_batch((5, 37, 9), V)._replace(token_type_ids=torch.zeros(51, dtype=torch.int32))
    rows = padded(batch)
    found = run_onnx(tmp_path / "modern.onnx", rows)
    assert list(found) == ["last_hidden_state"]  # an encoder without a masked-LM head
    assert np.isfinite(found["last_hidden_state"]).all()
    assert np.allclose(found["last_hidden_state"][rows.real], model.encode(batch), rtol=1e-4, atol=1e-4)


class _OtherSession:
    """A runtime whose hidden states are off by a little."""

    def __init__(self, wanted: PaddedModel) -> None:
        self.wanted = wanted

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            hidden, logits = self.wanted(*(torch.from_numpy(value) for value in inputs.values()))
        return [(hidden * 1.001).numpy(), logits.numpy()]


def test_a_graph_that_computes_something_else_is_refused() -> None:
    model = PaddedModel(small_model())
    runtime = mock.Mock(__version__="1", InferenceSession=lambda *_, **__: _OtherSession(model))
    with pytest.raises(BertPytorchError, match=r"differs from the model by 1\.0e-03, wanted 0\.0001"):
        check_onnx(Path("x.onnx"), model, runtime)


def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path) -> None:
    with (
        mock.patch.object(interop_onnx.importlib, "import_module", side_effect=ImportError("no module")),
        pytest.raises(MissingDependencyError, match="pip install onnx onnxscript onnxruntime"),
    ):
        export_onnx(tmp_path / "x.onnx", LoadedModel(small_model(), VOCABULARY, ()))
    assert list(tmp_path.iterdir()) == []
