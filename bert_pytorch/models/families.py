"""What the families call the parts of a configuration: Hugging Face's keys of each, as data.

Our keys are BERT's.  A family's table says which keys of its `config.json` are ours under another name, which must
have one value because nothing else is computed here, and what it takes where a key is absent.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

ModelType = Literal["bert", "roberta", "distilbert", "mosaic_bert", "modernbert"]

HUGGINGFACE_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
GLOBAL, LOCAL = "full_attention", "sliding_attention"


class Family(NamedTuple):
    """One family's keys."""

    defaults: Mapping[str, Any]
    """Of our keys, where they differ from BERT's."""
    huggingface_defaults: Mapping[str, Any] = {}
    """Of our keys, where `transformers` takes something else than we do if a `config.json` leaves one out."""
    names: Mapping[str, str] = {}
    """Our key to Hugging Face's, where they differ."""
    fixed: Mapping[str, Any] = {}
    """Keys of Hugging Face's that change what is computed, with the only value that is computed here."""
    unused: tuple[str, ...] = ()
    """Our keys that its `config.json` does not have."""
    model: str = ""
    """The class of `transformers` for masked-LM."""


BERT_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_word_embeddings": True,
}
FAMILIES: dict[ModelType, Family] = {
    "bert": Family({}, fixed=BERT_FIXED, model="BertForMaskedLM"),
    "roberta": Family(
        defaults={"vocab_size": 50265, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "next_sentence": False},
        huggingface_defaults={"type_vocab_size": 2, "layer_norm_eps": 1e-12},
        fixed=BERT_FIXED,
        model="RobertaForMaskedLM",
    ),
    "distilbert": Family(
        defaults={"num_hidden_layers": 6, "type_vocab_size": 0, "next_sentence": False},
        names={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "hidden_act": "activation",
        },
        fixed={"layer_norm_eps": 1e-12, "tie_word_embeddings": True},
        unused=("type_vocab_size", "layer_norm_eps"),
        model="DistilBertForMaskedLM",
    ),
    # transformers has no such model: its authors' files say "bert", which it would open as something else.
    "mosaic_bert": Family(
        defaults={"attention_probs_dropout_prob": 0.0, "next_sentence": False},
        fixed=BERT_FIXED,
        model="BertForMaskedLM",
    ),
    "modernbert": Family(
        defaults={
            "num_hidden_layers": 22,
            "intermediate_size": 1152,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": 8192,
            "type_vocab_size": 0,
            "vocab_size": 50368,
            "layer_norm_eps": 1e-5,
            "next_sentence": False,
            "local_attention": 128,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160_000.0,
            "local_rope_theta": 10_000.0,
        },
        names={
            "hidden_act": "hidden_activation",
            "hidden_dropout_prob": "mlp_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "layer_norm_eps": "norm_eps",
        },
        fixed={
            "attention_bias": False,
            "mlp_bias": False,
            "norm_bias": False,
            "classifier_bias": False,
            "decoder_bias": True,
            "classifier_activation": "gelu",
            "tie_word_embeddings": True,
        },
        unused=("type_vocab_size",),
        model="ModernBertForMaskedLM",
    ),
}
MODERNBERT_KEYS = ("local_attention", "global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")


def model_type_of(values: Mapping[str, Any]) -> Any:
    """Return the family that Hugging Face's `config.json` describes."""
    given = values.get("model_type", "bert")
    return "mosaic_bert" if given == "bert" and "alibi_starting_size" in values else given


def position_offset(model_type: ModelType, pad_token_id: int) -> int:
    """Return how many rows of Hugging Face's position embedding come before that of the first token.

    RoBERTa's positions begin behind the padding token's id; its `max_position_embeddings` counts those rows too.
    """
    return pad_token_id + 1 if model_type == "roberta" else 0


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """Say what a `config.json` asks for that is not computed here."""
    model_type = model_type_of(values)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        return [f'"model_type": found {model_type!r}, wanted one of {", ".join(FAMILIES)}.']
    return [
        f'"{key}": found {values[key]!r}, but only {wanted!r} is computed here for {model_type}.'
        for key, wanted in FAMILIES[model_type].fixed.items()
        if values.get(key) is not None and values[key] != wanted
    ] + (list(_modernbert_contradictions(values)) if model_type == "modernbert" else [])


def our_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a `config.json` without contradictions: keys that have a meaning here under our names.

    The result may hold keys and values of wrong types, as the file does.
    """
    model_type = model_type_of(values)
    family = FAMILIES[model_type]
    given = {ours: values[theirs] for ours, theirs in family.names.items() if theirs in values}
    if model_type == "modernbert":
        given |= _modernbert_patterns(values)
    translated = {**family.huggingface_defaults, **values, **given, "model_type": model_type}
    translated = {key: value for key, value in translated.items() if value is not None and key not in family.unused}
    activation = translated.get("hidden_act")
    if isinstance(activation, str):
        translated["hidden_act"] = HUGGINGFACE_ACTIVATIONS.get(activation, activation)
    pad, positions = values.get("pad_token_id", 1), translated.get("max_position_embeddings", 512)
    if model_type == "roberta" and isinstance(pad, int) and isinstance(positions, int):
        translated["max_position_embeddings"] = positions - position_offset(model_type, pad)
    return translated


def their_keys(values: Mapping[str, Any], vocab_size: int, pad_token_id: int) -> dict[str, Any]:
    """Translate our keys to the content of Hugging Face's `config.json`."""
    model_type: ModelType = values["model_type"]
    family = FAMILIES[model_type]
    keys = [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
        "initializer_range", "layer_norm_eps",
    ]  # fmt: skip
    keys += [key for key in MODERNBERT_KEYS if model_type == "modernbert"]
    translated = {family.names.get(key, key): values[key] for key in keys if key not in family.unused}
    activation = family.names.get("hidden_act", "hidden_act")
    translated[activation] = {"gelu_tanh": "gelu_pytorch_tanh"}.get(translated[activation], translated[activation])
    translated["max_position_embeddings"] += position_offset(model_type, pad_token_id)
    if "type_vocab_size" in translated:  # transformers looks a segment up whether there are any
        translated["type_vocab_size"] = max(translated["type_vocab_size"], 1)
    if model_type == "modernbert":
        translated["embedding_dropout"] = values["hidden_dropout_prob"]
    if model_type == "mosaic_bert":
        translated["alibi_starting_size"] = values["max_position_embeddings"]
    return {
        "model_type": model_type,
        "architectures": ["BertForPreTraining" if values["next_sentence"] else family.model],
        **{key: value for key, value in family.fixed.items() if key not in family.unused},
        **translated,
        "vocab_size": vocab_size,
        "pad_token_id": pad_token_id,
    }


def _modernbert_patterns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read what newer files say by layer: `layer_types` and `rope_parameters`."""
    found: dict[str, Any] = {}
    if values.get("local_rope_theta", 0) is None:
        found["local_rope_theta"] = values.get("global_rope_theta")
    ropes = values.get("rope_parameters") or {}
    for kind, key in ((GLOBAL, "global_rope_theta"), (LOCAL, "local_rope_theta")):
        if "rope_theta" in ropes.get(kind, {}):
            found[key] = ropes[kind]["rope_theta"]
    if values.get("layer_types"):
        found["global_attn_every_n_layers"] = _global_every(values["layer_types"])
    return found


def _global_every(layer_types: list[str]) -> int:
    return next((index for index, kind in enumerate(layer_types) if index and kind == GLOBAL), len(layer_types))


def _modernbert_contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    kinds = values.get("layer_types") or []
    if not isinstance(kinds, list) or kinds != [
        LOCAL if index % _global_every(kinds) else GLOBAL for index in range(len(kinds))
    ]:
        yield f'"layer_types": found {kinds!r}, wanted every n-th {GLOBAL}, from the first on.'
    ropes = values.get("rope_parameters") or {}
    plain = isinstance(ropes, Mapping) and all(
        isinstance(rope, Mapping) and rope.get("rope_type", "default") == "default" for rope in ropes.values()
    )
    if not plain or values.get("rope_scaling") is not None:
        yield f'"rope_parameters": found {ropes!r} (or "rope_scaling"), but only the type "default" is computed here.'
    if values.get("embedding_dropout", 0) != values.get("mlp_dropout", 0):
        yield '"embedding_dropout" and "mlp_dropout" differ; here they are one (hidden_dropout_prob).'
