"""From a configuration to a model: which architecture `model_type` names."""

from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.config import ModelConfig, ModelType
from bert_pytorch.models.distilbert import DistilBertForPreTraining
from bert_pytorch.models.modernbert import ModernBertForPreTraining
from bert_pytorch.models.mosaic_bert import MosaicBertForPreTraining
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.models.roberta import RobertaForPreTraining

ARCHITECTURES: dict[ModelType, type[PretrainingModel]] = {
    "bert": BertForPreTraining,
    "roberta": RobertaForPreTraining,
    "distilbert": DistilBertForPreTraining,
    "mosaic_bert": MosaicBertForPreTraining,
    "modernbert": ModernBertForPreTraining,
}


def build_model(
    config: ModelConfig, vocab_size: int | None = None, attention: AttentionName = "auto", seed: int = 0
) -> PretrainingModel:
    """Build and initialise the model that `config` describes; the arguments are `PretrainingModel`'s."""
    return ARCHITECTURES[config.model_type](config, vocab_size, attention, seed)
