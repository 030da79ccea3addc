"""The padded encoder and its masked-LM head as an ONNX graph, through torch's exporter.

Of torch's two exporters it is the one on `torch.export` (`dynamo=True`, the default since 2.9): sizes stay symbols and
their uses are proven, where the older one, which is to be removed, records one run and freezes what it does not notice.
It needs `onnxscript`.  Both were tried, on torch 2.11 and 2.13, with the same numbers.
"""
# B sequences, S tokens of each with padding, H hidden, V vocabulary

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bert_pytorch.errors import BertPytorchError, MissingDependencyError
from bert_pytorch.files import atomic_files
from bert_pytorch.interop.sources import LoadedModel
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.models.row_attention import RowPlan, RowSdpa

logger = logging.getLogger(__name__)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HIDDEN, LOGITS = "last_hidden_state", "logits"
OPSET = 20
"""The first with GELU as one operator."""
LARGEST_FILE = 1_500_000_000
"""Bytes of weights up to which they stand in the file itself; protobuf ends at 2 GiB."""
TOLERANCE = 1e-4
"""Largest difference that `check_onnx` allows, relative to the largest value (at least 1)."""


class _Rows(RowSdpa):
    """Attention on padded rows, of which a mask tells the real tokens; padding sees padding, so that nothing is NaN."""

    def __init__(self, attention_mask: Tensor) -> None:
        self.real = attention_mask.bool()

    def plan(self, batch: PackedBatch) -> RowPlan:
        """Compare every pair of tokens of a row."""
        return RowPlan((self.real.unsqueeze(1) == self.real.unsqueeze(2)).unsqueeze(1), {})


class PaddedModel(nn.Module):
    """Our packed model behind the inputs that `transformers` has for a BERT."""

    def __init__(self, model: PretrainingModel, *, head: bool = True) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Compute the hidden states and, with the head, the scores of every token; those of padding mean nothing.

        Args:
            input_ids: int64 (B, S).
            attention_mask: int64 (B, S), 1 for real tokens.
            token_type_ids: int64 (B, S).

        Returns:
            float32 (B, S, H), and (B, S, V).
        """
        rows, length = input_ids.shape
        nothing = input_ids.new_zeros(0)
        batch = PackedBatch(
            input_ids=input_ids.flatten(),
            token_type_ids=token_type_ids.flatten(),
            position_ids=torch.arange(length).expand(rows, length).flatten(),
            cu_seqlens=nothing,
            masked_positions=nothing,
            labels=nothing,
            next_sentence_labels=None,
            lengths=(),
        )
        hidden: Tensor = self.model.bert(batch, _Rows(attention_mask))
        states = hidden.unflatten(0, (rows, length))
        return (states, self.model.mlm_logits(hidden).unflatten(0, (rows, length))) if self.head else (states,)


def export_onnx(path: Path, loaded: LoadedModel) -> str:
    """Write an ONNX file whose batch and length are free, and check it in onnxruntime where that is installed.

    Inputs are `input_ids`, `attention_mask` and `token_type_ids`, int64 (B, S), S up to the model's positions; outputs
    `last_hidden_state` (B, S, H) and, where the source has a masked-LM head, `logits` (B, S, V).  Weights above 1.5 GB
    come in a file of their own beside it, `{name}.data`.

    Returns:
        What was checked, in a few words.

    Raises:
        MissingDependencyError: if `onnx` or `onnxscript` is not installed.
        BertPytorchError: if onnxruntime computes something else; nothing is left at `path`.
    """
    for library in ("onnx", "onnxscript"):
        _library(library, "writing ONNX")
    head = not any(name.startswith("cls.predictions.") for name in loaded.missing)
    padded = PaddedModel(loaded.model, head=head).eval()
    size = sum(parameter.numel() * parameter.element_size() for parameter in padded.parameters())
    with atomic_files(path.parent, sign=path.name) as temporary:
        _export(padded, temporary / path.name, separate_weights=size > LARGEST_FILE)
        try:
            runtime = _library("onnxruntime", "checking ONNX")
        except MissingDependencyError as error:
            logger.warning("%s", error)
            return "not checked"
        difference = check_onnx(temporary / path.name, padded, runtime)
    return f"onnxruntime computes the same to {difference:.1e}"


def check_onnx(path: Path, padded: PaddedModel, runtime: Any) -> float:
    """Compare with the model on random rows of several shapes, padding among them.

    Returns:
        The largest difference on real tokens, relative to the largest value (at least 1).

    Raises:
        BertPytorchError: if it is above `TOLERANCE`.
    """
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    longest = min(padded.model.config.max_position_embeddings, 64)
    for rows, length in ((1, 2), (3, longest), (2, longest // 2 + 1)):
        inputs = _random_inputs(padded.model, rows, length)
        found = session.run(None, {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)})
        with torch.inference_mode():
            wanted = padded(*inputs)
        real = inputs[1].bool()
        for theirs, ours in zip(found, wanted, strict=True):
            difference = (torch.from_numpy(theirs)[real] - ours[real]).abs().max() / ours[real].abs().max().clamp(min=1)
            worst = max(worst, float(difference.nan_to_num(torch.inf)))
    if worst > TOLERANCE:
        raise BertPytorchError(
            f"{path.name}: onnxruntime {runtime.__version__} differs from the model by {worst:.1e}, wanted {TOLERANCE} "
            "or less; the file was not written. Try the versions of requirements-extras.txt."
        )
    return worst


def _export(padded: PaddedModel, path: Path, *, separate_weights: bool) -> None:
    outputs = [HIDDEN, LOGITS] if padded.head else [HIDDEN]
    free = {
        0: torch.export.Dim("batch"),
        1: torch.export.Dim("sequence", max=padded.model.config.max_position_embeddings),
    }
    exporter_log = logging.getLogger("torch.onnx")
    before = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # which operators of other libraries it does without
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own future
            torch.onnx.export(
                padded,
                _random_inputs(padded.model, 3, 8),
                path,
                input_names=list(INPUTS),
                output_names=outputs,
                dynamic_shapes=(free,) * len(INPUTS),
                opset_version=OPSET,
                external_data=separate_weights,
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(before)


def _random_inputs(model: PretrainingModel, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw rows of which the first is half padding."""
    generator = torch.Generator().manual_seed(length)
    input_ids = torch.randint(0, model.vocab_size, (rows, length), generator=generator)
    attention_mask = torch.ones(rows, length, dtype=torch.int64)
    attention_mask[0, (length + 1) // 2 :] = 0
    segments = max(model.config.type_vocab_size, 1)
    return input_ids, attention_mask, torch.randint(0, segments, (rows, length), generator=generator)


def _library(name: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {name}, which cannot be imported ({error}): "
            "pip install onnx onnxscript onnxruntime, in the versions of requirements-extras.txt"
        ) from error
