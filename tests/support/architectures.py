"""A small model of each architecture, for tests that hold for all of them."""

import torch

from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.pretraining import PretrainingModel
from tests.support.packed_batches import small_config

ARCHITECTURES: dict[str, dict[str, object]] = {
    "bert": {},
    "bert_without_pairs": {"next_sentence": False},
    "roberta": {"model_type": "roberta", "type_vocab_size": 1},
    "distilbert": {"model_type": "distilbert", "num_hidden_layers": 2},
    "mosaic_bert": {"model_type": "mosaic_bert"},
    # Four layers: the whole sequence, two with a window of 3 to either side, the whole sequence.
    "modernbert": {"model_type": "modernbert", "num_hidden_layers": 4, "local_attention": 6},
    "modernbert_ending_locally": {"model_type": "modernbert", "num_hidden_layers": 3, "local_attention": 6},
}


def config_of(name: str, **changes: object) -> ModelConfig:
    """Return the small configuration of an architecture."""
    values = {"layer_norm_eps": 1e-12, **ARCHITECTURES[name], **changes}
    return small_config(**{"next_sentence": "model_type" not in values, **values}).checked(name)


def spread_model(config: ModelConfig, vocab_size: int | None = None, **arguments: object) -> PretrainingModel:
    """Build a model whose biases and LayerNorms are off their initial values too, as a trained one's."""
    model = build_model(config, vocab_size, seed=5, **arguments)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model
