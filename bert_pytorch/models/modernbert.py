"""ModernBERT (Warner et al. 2024): LayerNorms first, rotary positions, GeGLU, no biases, most layers see a window."""

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Embeddings, Encoder
from bert_pytorch.models.heads import PretrainingHeads
from bert_pytorch.models.layers import GatedIntermediate, Heads, PreNormLayer, layer_norm
from bert_pytorch.models.patterns import FULL, Pattern
from bert_pytorch.models.pretraining import PretrainingModel


class ModernBertForPreTraining(PretrainingModel):
    """ModernBERT with the masked-LM head."""

    @staticmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder; the first layer's input is normalised by the embeddings."""
        layers = (
            PreNormLayer(config, heads_of(config, index), GatedIntermediate(config), normed=index > 0)
            for index in range(config.num_hidden_layers)
        )
        embeddings = Embeddings(config, vocab_size, positions=False, bias=False)
        return Encoder(config, embeddings, layers, layer_norm(config, bias=False))

    @staticmethod
    def heads(config: ModelConfig, vocab_size: int) -> PretrainingHeads:
        """Assemble the head; of its biases only the decoder's is there."""
        return PretrainingHeads(config, vocab_size, activation="gelu", bias=False)


def heads_of(config: ModelConfig, index: int) -> Heads:
    """Make the attention heads of layer `index`: every n-th layer sees the whole sequence, the others a window."""
    assert config.local_attention is not None
    assert config.global_attn_every_n_layers is not None
    if index % config.global_attn_every_n_layers == 0:
        return Heads(config, FULL, config.global_rope_theta, bias=False)
    return Heads(config, Pattern(window=config.local_attention // 2), config.local_rope_theta, bias=False)
