"""RoBERTa (Liu et al. 2019): BERT's encoder without the next-sentence task; the masked-LM head's activation is GELU."""

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Embeddings, Encoder
from bert_pytorch.models.heads import PretrainingHeads
from bert_pytorch.models.layers import PostNormLayer
from bert_pytorch.models.pretraining import PretrainingModel


class RobertaForPreTraining(PretrainingModel):
    """RoBERTa with the masked-LM head."""

    @staticmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder."""
        layers = (PostNormLayer(config) for _ in range(config.num_hidden_layers))
        return Encoder(config, Embeddings(config, vocab_size), layers)

    @staticmethod
    def heads(config: ModelConfig, vocab_size: int) -> PretrainingHeads:
        """Assemble the head."""
        return PretrainingHeads(config, vocab_size, activation="gelu")
