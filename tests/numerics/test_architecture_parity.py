"""E1: every architecture against Hugging Face's with the same weights, MosaicBERT against a dense computation."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from bert_pytorch.interop.huggingface import export_huggingface, their_tensors
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.pretraining import PretrainingModel
from tests.support.architectures import config_of, spread_model
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import padded, random_batch
from tests.support.vocabularies import small_byte_bpe

LENGTHS = [(7,), (5, 17, 9, 1, 33), (16, 16, 16)]
VOCABULARY = small_byte_bpe()  # its padding token is 1, as RoBERTa's: positions begin at 2
V = len(VOCABULARY.tokens)
THEIRS = ["roberta", "distilbert", "modernbert", "modernbert_ending_locally"]


def without_padding_id(ids: Tensor) -> Tensor:
    """Avoid the padding token, which stands in no text: RoBERTa counts positions by it."""
    return torch.where(ids == VOCABULARY.pad_id, VOCABULARY.pad_id + 1, ids)


def compare(
    config: ModelConfig,
    lengths: tuple[int, ...],
    dtype: torch.dtype,
    folder: Path,
    ours_by: AttentionName = "auto",
    theirs_by: str = "sdpa",
) -> tuple[float, float]:
    """Return the largest relative errors of loss and scores, and of gradients under their names."""
    ours = spread_model(config, V, attention=ours_by)
    export_huggingface(folder, ours.state_dict(), config, VOCABULARY)
    theirs, information = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation=theirs_by, dtype=dtype
    )
    assert not any(information.values()), information
    ours, theirs = ours.to(dtype).train(), theirs.train()

    batch = random_batch(lengths, V, pairs=False)
    batch = batch._replace(input_ids=without_padding_id(batch.input_ids))
    rows = padded(batch)
    ids = torch.where(rows.real, rows.input_ids, VOCABULARY.pad_id)
    output = theirs(input_ids=ids, attention_mask=rows.attention_mask, labels=rows.labels)
    loss = ours(batch).mlm_loss_sum / len(batch.labels)
    scores = ours.mlm_logits(ours.encode(batch))
    forward = max(relative_error(loss, output.loss), relative_error(scores, output.logits[rows.real]))

    loss.backward()
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    return forward, largest_error(their_tensors(gradients, config, VOCABULARY), wanted)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("theirs_by", ["eager", "sdpa"])
def test_float32_equals_transformers(name: str, lengths: tuple[int, ...], theirs_by: str, tmp_path: Path) -> None:
    forward, backward = compare(config_of(name), lengths, torch.float32, tmp_path, theirs_by=theirs_by)
    assert forward < 1e-5
    assert backward < 1e-4


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("ours_by", ["auto", "reference"])
def test_float64_equals_transformers(name: str, ours_by: AttentionName, tmp_path: Path) -> None:
    forward, backward = compare(config_of(name), (5, 17, 9, 33), torch.float64, tmp_path, ours_by)
    # transformers computes ModernBERT's angles and its softmax in float32, whatever the model's precision.
    tolerance = 2e-6 if name.startswith("modernbert") else 1e-9
    assert forward < tolerance
    assert backward < 10 * tolerance


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("roberta", {"hidden_act": "relu", "layer_norm_eps": 1e-2}),  # the head keeps its own activation, GELU
        ("distilbert", {"hidden_act": "relu"}),
        ("modernbert", {"hidden_act": "silu", "layer_norm_eps": 1e-2, "global_attn_every_n_layers": 2}),
        ("modernbert", {"global_rope_theta": 40.0, "local_rope_theta": 7.0}),
    ],
)
def test_configured_values_are_those_of_transformers(name: str, changes: dict[str, object], tmp_path: Path) -> None:
    forward, backward = compare(config_of(name, **changes), (5, 17, 9), torch.float32, tmp_path)
    assert forward < 1e-5
    assert backward < 1e-4


def dense_mosaic_bert(model: PretrainingModel, lengths: tuple[int, ...], ids: Tensor, segments: Tensor) -> Tensor:
    """Compute MosaicBERT's scores sequence by sequence, head by head (Portes et al. 2023, section 3; no dropout)."""
    parts = model.bert.embeddings
    slopes = [0.25, 0.0625, 0.015625, 0.00390625]  # 4 heads: 2^-2, 2^-4, 2^-6, 2^-8
    scores = []
    for tokens, types in zip(ids.split(lengths), segments.split(lengths), strict=True):
        hidden = parts.LayerNorm(parts.word_embeddings.weight[tokens] + parts.token_type_embeddings.weight[types])
        places = torch.arange(len(tokens), dtype=hidden.dtype)
        distance = (places[:, None] - places).abs()
        for layer in model.bert.encoder.layer:
            block, mixed = layer.attention, []
            for head, slope in enumerate(slopes):
                at = slice(16 * head, 16 * head + 16)
                query, key, value = (
                    hidden @ part.weight[at].T + part.bias[at]
                    for part in (block.self.query, block.self.key, block.self.value)
                )
                mixed.append((query @ key.T / 4 - slope * distance).softmax(1) @ value)
            summed = hidden + torch.cat(mixed, 1) @ block.output.dense.weight.T + block.output.dense.bias
            hidden = block.output.LayerNorm(summed)
            glu, plain = layer.intermediate.dense.weight, layer.intermediate.linear.weight
            inner = F.gelu(hidden @ glu.T) * (hidden @ plain.T)
            hidden = layer.output.LayerNorm(hidden + inner @ layer.output.dense.weight.T + layer.output.dense.bias)
        head_of = model.cls.predictions
        transformed = head_of.transform.LayerNorm(F.gelu(head_of.transform.dense(hidden)))
        scores.append(transformed @ parts.word_embeddings.weight[: model.vocab_size].T + head_of.bias)
    return torch.cat(scores)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(
    ("attention", "dtype", "forward", "backward"),
    [
        ("auto", torch.float32, 1e-5, 1e-4),
        ("auto", torch.float64, 1e-9, 1e-9),
        ("reference", torch.float64, 1e-9, 1e-9),
    ],
)
def test_mosaic_bert_equals_a_dense_computation(
    attention: AttentionName, dtype: torch.dtype, forward: float, backward: float, lengths: tuple[int, ...]
) -> None:
    config = config_of("mosaic_bert")
    batch = random_batch(lengths, pairs=False)
    dense = spread_model(config).double()
    wanted = dense_mosaic_bert(dense, lengths, batch.input_ids.long(), batch.token_type_ids.long())
    F.cross_entropy(wanted[batch.masked_positions], batch.labels, reduction="sum").backward()
    model = spread_model(config, attention=attention).to(dtype)
    assert relative_error(model.mlm_logits(model.encode(batch)), wanted) < forward
    model(batch).mlm_loss_sum.backward()
    found, reference = ({name: part.grad for name, part in one.named_parameters()} for one in (model, dense))
    assert largest_error(found, reference) < backward
