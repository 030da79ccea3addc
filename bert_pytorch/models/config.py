"""The shape of an encoder, in the keys that the whole BERT family writes into its JSON files.

Reads our flat files, Google's and NVIDIA's `bert_config.json`, and Hugging Face's `config.json`.  Nothing is assumed
silently: an unknown key is an error, and what this architecture cannot compute is refused by name.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from bert_pytorch.config.files import check_file_values, read_mapping
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError

SHIPPED_CONFIGS = Path(__file__).resolve().parents[2] / "config" / "models"

Activation = Literal["gelu", "gelu_tanh", "gelu_new", "relu", "swish", "silu"]
HUGGINGFACE_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}


class ModelConfig(Settings):
    """Shape and regularisation of one encoder; the defaults are BERT-base uncased."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "vocab_file": "the vocabulary of the corpus folder (vocab.txt), and remove this key",
    }

    hidden_size: int = Field(768, gt=0)
    """Width H of the hidden states."""
    num_hidden_layers: int = Field(12, gt=0)
    """Transformer layers."""
    num_attention_heads: int = Field(12, gt=0)
    """Attention heads; they divide the hidden size."""
    intermediate_size: int = Field(3072, gt=0)
    """Width of the feed-forward layer, 4 H in the BERT papers."""
    hidden_act: Activation = "gelu"
    """Activation of the feed-forward layer and the masked-LM head; `gelu` is the exact one (erf), `gelu_tanh` and
    `gelu_new` are Google's tanh approximation, `swish` and `silu` are one function."""
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on the embeddings and on the output of each attention and feed-forward block."""
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on attention probabilities; 0 allows the fast attention kernels."""
    max_position_embeddings: int = Field(512, gt=0)
    """Longest sequence, in tokens."""
    type_vocab_size: int = Field(2, ge=0)
    """Segment embeddings; 0 leaves them out."""
    vocab_size: int = Field(30522, gt=0)
    """Tokens of the vocabulary; a corpus's own vocabulary overrides it."""
    initializer_range: float = Field(0.02, ge=0)
    """Standard deviation of the initial weights."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Added to the variance in LayerNorm."""
    next_sentence: bool = True
    """Whether the model has a pooler and a next-sentence head."""
    model_name: str | None = None
    """A name for people."""
    lowercase: bool | None = None
    """The casing the model is meant for; the corpus's own casing is what counts."""
    tokenizer: Literal["wordpiece", "byte_bpe", "bpe"] | None = None
    """The kind of tokenizer the model is meant for, `bpe` being the fork's word for `byte_bpe`; the corpus's counts."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.hidden_size % self.num_attention_heads:
            yield (
                f'"hidden_size" {self.hidden_size} is not divisible by "num_attention_heads" '
                f"{self.num_attention_heads}; BERT takes hidden_size / 64 heads."
            )


def load_model_config(path_or_name: str | Path) -> ModelConfig:
    """Read a model configuration from a file, a Hugging Face folder, or by the bare name of a shipped file.

    Args:
        path_or_name: for example `my/config.json`, `downloads/minilm/` or `bert_base_uncased`.

    Raises:
        ConfigError: no such file or name, or a wrong key, value or combination in it: all problems at once.
    """
    path = _resolve(path_or_name)
    values = read_mapping(path)
    if "model_type" in values or "architectures" in values:
        return from_huggingface(values, path)
    check_file_values(values, ModelConfig, path)
    return ModelConfig.model_validate(values).checked(str(path))


def from_huggingface(values: dict[str, Any], where: Path) -> ModelConfig:
    """Translate the content of Hugging Face's `config.json`; keys that do not change the encoder are ignored.

    Raises:
        ConfigError: if the model described is not the BERT that this project computes.
    """
    problems = _contradictions(values)
    if problems:
        raise ConfigError(str(where), problems)
    known = {name: value for name, value in values.items() if name in ModelConfig.model_fields and value is not None}
    activation = known.get("hidden_act")
    if isinstance(activation, str):
        known["hidden_act"] = HUGGINGFACE_ACTIVATIONS.get(activation, activation)
    # Hugging Face has no key for it: a masked-LM model comes without the pooler and the next-sentence head.
    known.setdefault("next_sentence", values.get("architectures") != ["BertForMaskedLM"])
    check_file_values(known, ModelConfig, where)
    return ModelConfig.model_validate(known).checked(str(where))


def to_huggingface(config: ModelConfig, vocab_size: int, pad_token_id: int) -> dict[str, Any]:
    """Return the content of Hugging Face's `config.json` for this shape."""
    keys = [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "max_position_embeddings", "initializer_range", "layer_norm_eps",
    ]  # fmt: skip
    return {
        "model_type": "bert",
        "architectures": ["BertForPreTraining" if config.next_sentence else "BertForMaskedLM"],
        **{key: getattr(config, key) for key in keys},
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.hidden_act, config.hidden_act),
        "type_vocab_size": max(config.type_vocab_size, 1),  # transformers looks a segment up whether there are any
        "vocab_size": vocab_size,
        "pad_token_id": pad_token_id,
        "position_embedding_type": "absolute",
    }


def _contradictions(values: dict[str, Any]) -> list[str]:
    wanted: dict[str, tuple[Any, ...]] = {
        "model_type": ("bert",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "is_encoder_decoder": (False,),
        "tie_word_embeddings": (True,),
    }
    return [
        f'"{key}": found {values[key]!r}, but only {allowed[0]!r} is BERT as it is pretrained here.'
        for key, allowed in wanted.items()
        if values.get(key) is not None and values[key] not in allowed
    ]


def _resolve(path_or_name: str | Path) -> Path:
    path, name = Path(path_or_name), str(path_or_name)
    if path.is_dir():
        return path / "config.json"
    if path.exists() or path.suffix or "/" in name:
        return path
    shipped = sorted(file.stem for file in SHIPPED_CONFIGS.glob("*.json"))
    if name in shipped:
        return SHIPPED_CONFIGS / f"{name}.json"
    near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped are {', '.join(shipped) or 'none here'}."
    raise ConfigError("model configuration", [f"there is no file or shipped configuration {name!r}: {hint}"])
