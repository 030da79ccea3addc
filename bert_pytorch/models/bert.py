"""BERT (Devlin et al. 2019): learned positions, LayerNorm after each sum, a plain feed-forward block.

The state dict's names and shapes are those of Hugging Face's `BertForPreTraining`; see `models.pretraining`.
"""

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Embeddings, Encoder
from bert_pytorch.models.layers import PostNormLayer
from bert_pytorch.models.pretraining import PretrainingModel


class BertForPreTraining(PretrainingModel):
    """BERT with the masked-LM head and, where configured, the next-sentence head."""

    @staticmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder; the pooler belongs to the next-sentence task."""
        layers = (PostNormLayer(config) for _ in range(config.num_hidden_layers))
        return Encoder(config, Embeddings(config, vocab_size), layers, pooler=config.next_sentence)
