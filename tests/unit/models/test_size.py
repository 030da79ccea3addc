"""Parameter counts by hand and as published; memory against what is really kept."""

import pytest
import torch
import transformers

from bert_pytorch.kernels.cpu import references_only
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import SHIPPED_CONFIGS, ModelConfig, load_model_config, to_huggingface
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.models.size import memory_estimate, num_parameters
from tests.support.packed_batches import random_batch, small_config

SHIPPED = sorted(path.stem for path in SHIPPED_CONFIGS.glob("*.json"))

# BERT-base, by hand: embeddings (30522 + 512 + 2) · 768 and LayerNorm 2 · 768; a layer 4 · (768² + 768) for attention,
# 768 · 3072 + 3072 + 3072 · 768 + 768 for the feed-forward block, 4 · 768 for its LayerNorms; the pooler 768² + 768.
BASE_ENCODER = 23_835_648 + 1_536 + 12 * (2_362_368 + 4_722_432 + 3_072) + 590_592
LARGE_ENCODER = 335_141_888  # published for bert-large-uncased
BY_HAND = {
    "bert_base_uncased": BASE_ENCODER + (590_592 + 1_536 + 30_522) + (2 * 768 + 2),
    "bert_base_cased": 108_310_272 + (590_592 + 1_536 + 28_996) + (2 * 768 + 2),
    "bert_large_uncased": LARGE_ENCODER + (1_049_600 + 2_048 + 30_522) + (2 * 1024 + 2),
    "bert_large_cased": 333_579_264 + (1_049_600 + 2_048 + 28_996) + (2 * 1024 + 2),
    # as bert_large_cased without pooler, next-sentence head and the two segment embeddings
    "roberta_large_cased": 333_579_264 - 1_049_600 - 2 * 1024 + (1_049_600 + 2_048 + 28_996),
    # Word and segment embeddings and LayerNorm; a layer 4 · (768² + 768) for attention, 3 · 768 · 3072 + 768 for the
    # gated block, 4 · 768 for its LayerNorms; the head.
    "mosaic_bert_base": (30_522 + 2) * 768 + 1_536 + 12 * (2_362_368 + 7_077_888 + 768 + 3_072) + 622_650,
}
MILLIONS = {  # Turc et al. 2019, "Well-Read Students Learn Better", table of their README
    "bert_tiny_uncased": 4.4,
    "bert_mini_uncased": 11.3,
    "bert_small_uncased": 29.1,
    "bert_medium_uncased": 41.7,
    "bert_base_uncased": 110.1,
    "modernbert_base": 149.6,  # Warner et al. 2024: 149M and 395M
    "modernbert_large": 395.9,
}


def on_meta(config: ModelConfig) -> PretrainingModel:
    with torch.device("meta"):
        return build_model(config)


def test_parameters_by_hand() -> None:
    assert BASE_ENCODER == 109_482_240  # published for bert-base-uncased
    for name, wanted in BY_HAND.items():
        assert num_parameters(load_model_config(name)) == wanted, name


def test_parameters_as_published() -> None:
    for name, millions in MILLIONS.items():
        assert abs(num_parameters(load_model_config(name)) / 1e6 - millions) < 0.1, name


@pytest.mark.parametrize(
    "name", ["roberta_base", "roberta_large", "distilbert_base", "modernbert_base", "modernbert_large", "bert_1_5b"]
)
def test_parameters_are_as_many_as_those_of_transformers(name: str) -> None:
    config = load_model_config(name)
    values = to_huggingface(config, config.vocab_size, pad_token_id=1)
    with torch.device("meta"):
        kind = transformers.AutoModelForPreTraining if config.next_sentence else transformers.AutoModelForMaskedLM
        theirs = kind.from_config(transformers.AutoConfig.for_model(**values))
    unused_positions = 2 * config.hidden_size if config.model_type == "roberta" else 0
    assert num_parameters(config) == theirs.num_parameters() - unused_positions


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configuration_builds_with_the_counted_parameters(name: str) -> None:
    config = load_model_config(name)
    model = on_meta(config)
    padding = (-config.vocab_size % 8) * config.hidden_size
    built = sum(parameter.numel() for parameter in model.parameters())
    assert built == num_parameters(config) + padding
    assert memory_estimate(config, tokens=1, masked_tokens=1).parameters == 4 * built
    assert set(model.state_dict()) == {
        name for name, _ in model.named_parameters()
    }  # no buffers, the tied decoder once
    assert config.hidden_size == 64 * config.num_attention_heads
    assert config.attention_probs_dropout_prob == 0


def test_all_contracted_configurations_are_shipped() -> None:
    assert set(BY_HAND) | set(MILLIONS) <= set(SHIPPED)


@pytest.mark.parametrize(
    ("changes", "vocab_size"),
    [
        ({}, 203),
        ({"hidden_dropout_prob": 0.1}, 203),
        ({"num_hidden_layers": 1, "intermediate_size": 64}, 5000),
        ({"num_hidden_layers": 6}, 203),
        ({"num_hidden_layers": 6, "model_type": "mosaic_bert", "next_sentence": False}, 203),
        ({"num_hidden_layers": 6, "model_type": "modernbert", "next_sentence": False}, 203),
    ],
)
def test_activation_estimate_is_within_a_quarter_of_what_is_kept(changes: dict[str, object], vocab_size: int) -> None:
    config = small_config(**changes)
    model = build_model(config, vocab_size).train()
    batch = random_batch([40] * 40, vocab_size)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with references_only(), torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(batch)
    scores_in_flight = 2 * 4 * len(batch.labels) * (-(-vocab_size // 8) * 8)  # gradients of the backward pass
    estimate = memory_estimate(config, vocab_size, tokens=1600, masked_tokens=len(batch.labels)).activations
    assert 0.8 < estimate / (sum(kept.values()) + scores_in_flight) < 1.25


def test_estimate_follows_what_is_asked() -> None:
    config = load_model_config("bert_large_uncased")
    full = memory_estimate(config, tokens=8192, masked_tokens=1229)
    assert full.total == full.parameters + full.gradients + full.optimizer_state + full.activations
    assert full.optimizer_state == 2 * full.parameters == 2 * full.gradients
    recomputed = memory_estimate(config, tokens=8192, masked_tokens=1229, checkpoint_activations=True)
    assert recomputed.activations < 0.15 * full.activations
    half = memory_estimate(config, tokens=8192, masked_tokens=1229, bytes_per_value=2)
    assert 0.5 < half.activations / full.activations < 0.6
