"""The shape of an encoder, in the keys that the whole BERT family writes into its JSON files.

Reads our flat files, Google's and NVIDIA's `bert_config.json`, and Hugging Face's `config.json` (`models.families`
knows what each family calls the same).  Nothing is assumed silently: an unknown key is an error, and what an
architecture cannot compute is refused by name.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from bert_pytorch.config.files import check_file_values, read_mapping
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from bert_pytorch.models.families import FAMILIES, MODERNBERT_KEYS, ModelType, contradictions, our_keys, their_keys

SHIPPED_CONFIGS = Path(__file__).resolve().parents[2] / "config" / "models"

Activation = Literal["gelu", "gelu_tanh", "gelu_new", "relu", "swish", "silu"]
OUR_KEYS = ("model_name", "next_sentence", "lowercase", "tokenizer")
"""Keys that tell our files, which may name a `model_type`, from Hugging Face's."""


class ModelConfig(Settings):
    """Shape and regularisation of one encoder; the defaults are BERT-base uncased, or `model_type`'s base model."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "vocab_file": "the vocabulary of the corpus folder (vocab.txt), and remove this key",
    }

    model_type: ModelType = "bert"
    """The architecture, as Hugging Face names it."""
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
    local_attention: int | None = Field(None, gt=0)
    """modernbert: width of the window of its local layers; a token sees half of it to either side."""
    global_attn_every_n_layers: int | None = Field(None, gt=0)
    """modernbert: every n-th layer, from the first on, sees the whole sequence."""
    global_rope_theta: float | None = Field(None, gt=0)
    """modernbert: base of the rotary angles in those layers."""
    local_rope_theta: float | None = Field(None, gt=0)
    """modernbert: base of the rotary angles in the others."""
    type_vocab_size: int = Field(2, ge=0)
    """Segment embeddings; 0 leaves them out."""
    vocab_size: int = Field(30522, gt=0)
    """Tokens of the vocabulary; a corpus's own vocabulary overrides it."""
    initializer_range: float = Field(0.02, ge=0)
    """Standard deviation of the initial weights."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Added to the variance in LayerNorm."""
    next_sentence: bool = True
    """Whether the model has a pooler and a next-sentence head; only `bert` has."""
    model_name: str | None = None
    """A name for people."""
    lowercase: bool | None = None
    """The casing the model is meant for; the corpus's own casing is what counts."""
    tokenizer: Literal["wordpiece", "byte_bpe", "bpe"] | None = None
    """The kind of tokenizer the model is meant for, `bpe` being the fork's word for `byte_bpe`; the corpus's counts."""

    @model_validator(mode="before")
    @classmethod
    def _family_defaults(cls, values: Any) -> Any:
        name = values.get("model_type", "bert") if isinstance(values, dict) else None
        family = FAMILIES.get(name) if isinstance(name, str) else None  # type: ignore[call-overload]
        return values if family is None else {**family.defaults, **values}

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        yield from self._family_problems()
        if self.hidden_size % self.num_attention_heads:
            yield (
                f'"hidden_size" {self.hidden_size} is not divisible by "num_attention_heads" '
                f"{self.num_attention_heads}; BERT takes hidden_size / 64 heads."
            )

    def _family_problems(self) -> Iterator[str]:
        if self.next_sentence and self.model_type != "bert":
            yield f'"next_sentence" is true, but only bert has such a head, not {self.model_type}; write false.'
        if self.type_vocab_size and self.model_type in ("distilbert", "modernbert"):
            yield f'"type_vocab_size" is {self.type_vocab_size}, but {self.model_type} has no segments; write 0.'
        if self.layer_norm_eps != 1e-12 and self.model_type == "distilbert":
            yield f'"layer_norm_eps" is {self.layer_norm_eps}, but distilbert has 1e-12; leave the key out.'
        if self.model_type == "modernbert":
            missing = [key for key in MODERNBERT_KEYS if getattr(self, key) is None]
            if missing:
                yield f"{', '.join(missing)}: found null, wanted a number; leave the keys out for ModernBERT's."
            if self.local_attention is not None and self.local_attention % 2:
                yield f'"local_attention" {self.local_attention} is odd; a token sees half of it to either side.'
            if self.hidden_size // self.num_attention_heads % 2:
                yield (
                    f'"hidden_size" {self.hidden_size} over "num_attention_heads" {self.num_attention_heads} is odd; '
                    "rotary positions turn pairs of numbers."
                )
            return
        for key in MODERNBERT_KEYS:
            if getattr(self, key) is not None:
                yield f'"{key}" is modernbert\'s; remove it, or write "model_type": "modernbert".'


def load_model_config(path_or_name: str | Path) -> ModelConfig:
    """Read a model configuration from a file, a Hugging Face folder, or by the bare name of a shipped file.

    Args:
        path_or_name: for example `my/config.json`, `downloads/minilm/` or `bert_base_uncased`.

    Raises:
        ConfigError: no such file or name, or a wrong key, value or combination in it: all problems at once.
    """
    path = _resolve(path_or_name)
    return model_config_of(read_mapping(path), path)


def model_config_of(values: dict[str, Any], path: Path) -> ModelConfig:
    """Check the content of a configuration file.

    Raises:
        ConfigError: as `load_model_config`.
    """
    if ("model_type" in values or "architectures" in values) and not any(key in values for key in OUR_KEYS):
        return from_huggingface(values, path)
    check_file_values(values, ModelConfig, path)
    return ModelConfig.model_validate(values).checked(str(path))


def from_huggingface(values: dict[str, Any], where: Path) -> ModelConfig:
    """Translate the content of Hugging Face's `config.json`; keys that do not change the encoder are ignored.

    Raises:
        ConfigError: if the model described is not one that this project computes.
    """
    problems = contradictions(values)
    if problems:
        raise ConfigError(str(where), problems)
    known = {name: value for name, value in our_keys(values).items() if name in ModelConfig.model_fields}
    if known["model_type"] == "bert":
        # Hugging Face has no key for it: a masked-LM model comes without the pooler and the next-sentence head.
        known.setdefault("next_sentence", values.get("architectures") != ["BertForMaskedLM"])
    check_file_values(known, ModelConfig, where)
    return ModelConfig.model_validate(known).checked(str(where))


def to_huggingface(config: ModelConfig, vocab_size: int, pad_token_id: int) -> dict[str, Any]:
    """Return the content of Hugging Face's `config.json` for this shape."""
    return their_keys(config.model_dump(), vocab_size, pad_token_id)


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
