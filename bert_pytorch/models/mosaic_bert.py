"""MosaicBERT (Portes et al. 2023): BERT with ALiBi for positions and a gated feed-forward block (GELU, no biases)."""

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Embeddings, Encoder
from bert_pytorch.models.layers import GatedIntermediate, Heads, PostNormLayer
from bert_pytorch.models.patterns import Pattern, alibi_slopes
from bert_pytorch.models.pretraining import PretrainingModel


class MosaicBertForPreTraining(PretrainingModel):
    """MosaicBERT with the masked-LM head."""

    @staticmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder."""
        alibi = Pattern(slopes=alibi_slopes(config.num_attention_heads))
        layers = (
            PostNormLayer(config, Heads(config, alibi), GatedIntermediate(config))
            for _ in range(config.num_hidden_layers)
        )
        return Encoder(config, Embeddings(config, vocab_size, positions=False), layers)
