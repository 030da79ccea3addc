"""DistilBERT (Sanh et al. 2019): half of BERT's layers, neither segments nor a pooler."""

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Embeddings, Encoder
from bert_pytorch.models.layers import PostNormLayer
from bert_pytorch.models.pretraining import PretrainingModel


class DistilBertForPreTraining(PretrainingModel):
    """DistilBERT with the masked-LM head."""

    @staticmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder."""
        layers = (PostNormLayer(config) for _ in range(config.num_hidden_layers))
        return Encoder(config, Embeddings(config, vocab_size), layers)
