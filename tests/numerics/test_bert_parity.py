"""E1: our packed BERT against Hugging Face's padded one with the same weights, forward and backward."""

import pytest
import torch
import transformers
from torch import Tensor

from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.config import ModelConfig, to_huggingface
from bert_pytorch.models.inputs import PackedBatch
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import padded, random_batch, small_config

LENGTHS = [(7,), (5, 17, 9, 1, 33), (16, 16, 16)]
ACTIVATIONS = ["gelu", "gelu_tanh", "gelu_new", "relu", "swish", "silu"]


def twins(
    config: ModelConfig, dtype: torch.dtype, attention: AttentionName = "auto"
) -> tuple[BertForPreTraining, torch.nn.Module]:
    """Build ours and theirs with equal weights, biases and LayerNorms off their initial values too."""
    ours = BertForPreTraining(config, attention=attention, seed=5).to(dtype)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    values = to_huggingface(config, config.vocab_size, pad_token_id=0)
    kind = transformers.BertForPreTraining if config.next_sentence else transformers.BertForMaskedLM
    theirs = kind(transformers.BertConfig(**values)).to(dtype)
    weights = {name: cut_padding(name, tensor, config) for name, tensor in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert set(missing) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}  # tied
    assert not unexpected
    return ours.train(), theirs.train()


def cut_padding(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    return tensor[: config.vocab_size] if name.endswith("word_embeddings.weight") else tensor


def our_loss(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    terms = model(batch)
    loss = terms.mlm_loss_sum / len(batch.labels)
    return loss if terms.nsp_loss_sum is None else loss + terms.nsp_loss_sum / len(batch.lengths)


def their_output(model: torch.nn.Module, batch: PackedBatch) -> transformers.utils.ModelOutput:
    rows = padded(batch)
    pairs = {} if batch.next_sentence_labels is None else {"next_sentence_label": batch.next_sentence_labels}
    return model(
        input_ids=rows.input_ids,
        token_type_ids=rows.token_type_ids,
        attention_mask=rows.attention_mask,
        labels=rows.labels,
        **pairs,
    )


def compare(config: ModelConfig, lengths: tuple[int, ...], dtype: torch.dtype, attention: AttentionName) -> tuple:
    """Return the largest relative errors of losses, scores, and gradients."""
    ours, theirs = twins(config, dtype, attention)
    batch = random_batch(lengths, pairs=config.next_sentence)
    loss, output = our_loss(ours, batch), their_output(theirs, batch)
    hidden = ours.encode(batch)
    their_scores = output["prediction_logits" if config.next_sentence else "logits"][padded(batch).real]
    forward = [relative_error(loss, output.loss), relative_error(ours.mlm_logits(hidden), their_scores)]
    if config.next_sentence:
        forward.append(relative_error(ours.nsp_logits(hidden, batch.cu_seqlens), output.seq_relationship_logits))
    loss.backward()
    output.loss.backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = {name: cut_padding(name, parameter.grad, config) for name, parameter in ours.named_parameters()}
    return max(forward), largest_error(found, wanted)


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_float32_equals_transformers(lengths: tuple[int, ...], next_sentence: bool) -> None:
    forward, backward = compare(small_config(next_sentence=next_sentence), lengths, torch.float32, "auto")
    assert forward < 1e-5
    assert backward < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_equals_transformers(activation: str) -> None:
    forward, backward = compare(small_config(hidden_act=activation), (5, 17, 9), torch.float64, "auto")
    assert forward < 1e-9
    assert backward < 1e-9


@pytest.mark.parametrize("lengths", LENGTHS)
def test_float64_reference_equals_transformers(lengths: tuple[int, ...]) -> None:
    forward, backward = compare(small_config(), lengths, torch.float64, "reference")
    assert forward < 1e-9
    assert backward < 1e-9


def test_layer_norm_epsilon_is_the_configured_one() -> None:
    forward, _ = compare(small_config(layer_norm_eps=1e-2), (5, 17), torch.float64, "auto")
    assert forward < 1e-9
