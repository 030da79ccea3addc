"""Model configurations: ours, Google's, Hugging Face's, and wrong ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from bert_pytorch.errors import ConfigError
from bert_pytorch.models.config import SHIPPED_CONFIGS, load_model_config, to_huggingface
from tests.support.packed_batches import small_config

# As Google published it for BERT-base, uncased.
GOOGLE = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def written(folder: Path, values: Any) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(values))
    return path


def test_googles_file_loads_with_the_next_sentence_head(tmp_path: Path) -> None:
    config = load_model_config(written(tmp_path, GOOGLE))
    assert config.next_sentence  # an ancestor of ours dropped the head and the segments when the key was absent
    assert {name: getattr(config, name) for name in GOOGLE} == GOOGLE


def test_bare_name_is_a_shipped_file() -> None:
    assert load_model_config("bert_large_cased") == load_model_config(SHIPPED_CONFIGS / "bert_large_cased.json")
    assert load_model_config("bert_large_cased").hidden_size == 1024


def test_huggingface_file_and_folder_load(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=384, hidden_act="gelu_pytorch_tanh", classifier_dropout=0.3).save_pretrained(
        tmp_path
    )
    config = load_model_config(tmp_path)
    assert config == load_model_config(tmp_path / "config.json")
    assert (config.hidden_size, config.hidden_act, config.next_sentence) == (384, "gelu_tanh", True)


def test_masked_lm_of_huggingface_has_no_next_sentence_head(tmp_path: Path) -> None:
    config = small_config(next_sentence=False)
    assert not load_model_config(written(tmp_path, to_huggingface(config, 203, 0))).next_sentence
    config = small_config(next_sentence=True)
    assert load_model_config(written(tmp_path, to_huggingface(config, 203, 0))).next_sentence


FAMILY_CONFIGS = {
    "roberta": transformers.RobertaConfig(max_position_embeddings=514, hidden_act="relu"),
    "distilbert": transformers.DistilBertConfig(dim=96, n_layers=3, n_heads=4, hidden_dim=128, dropout=0.2),
    "modernbert": transformers.ModernBertConfig(num_hidden_layers=7, global_attn_every_n_layers=4),
}


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_what_transformers_writes_for_a_family_comes_back_from_ours(name: str, tmp_path: Path) -> None:
    theirs = FAMILY_CONFIGS[name]
    theirs.save_pretrained(tmp_path)
    config = load_model_config(tmp_path)
    assert config.model_type == name
    assert config.max_position_embeddings == {"modernbert": 8192}.get(name, 512)
    assert not config.next_sentence
    again = transformers.AutoConfig.for_model(**to_huggingface(config, theirs.vocab_size, theirs.pad_token_id))
    # The rest is about tasks and tokens, or about training where one of ours is two of theirs.
    told = {"architectures", "dtype", "transformers_version", "initializer_cutoff_factor"}
    differing = {key for key, value in theirs.to_dict().items() if again.to_dict().get(key) != value}
    assert differing <= told


def test_modernberts_patterns_are_read_from_old_and_new_files(tmp_path: Path) -> None:
    old = {
        "model_type": "modernbert",
        "num_hidden_layers": 6,
        "global_attn_every_n_layers": 2,
        "local_rope_theta": None,
    }
    config = load_model_config(written(tmp_path, {**old, "global_rope_theta": 500.0}))
    assert (config.global_attn_every_n_layers, config.global_rope_theta, config.local_rope_theta) == (2, 500.0, 500.0)
    new = {
        "model_type": "modernbert",
        "num_hidden_layers": 4,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        },
    }
    config = load_model_config(written(tmp_path, new))
    assert (config.global_attn_every_n_layers, config.global_rope_theta, config.local_rope_theta) == (2, 300.0, 20.0)
    only_global = {**new, "layer_types": ["full_attention"] * 4}
    assert load_model_config(written(tmp_path, only_global)).global_attn_every_n_layers == 1


def test_our_file_takes_its_familys_defaults_and_counts_roberta_positions_as_tokens(tmp_path: Path) -> None:
    config = load_model_config(written(tmp_path, {"model_name": "mine", "model_type": "roberta"}))
    assert (config.max_position_embeddings, config.vocab_size, config.layer_norm_eps) == (512, 50265, 1e-5)
    assert not config.next_sentence
    assert to_huggingface(config, 50265, 1)["max_position_embeddings"] == 514


BAD = [
    ({"model_name": "a", "model_type": "roberta", "next_sentence": True}, ["next_sentence", "roberta"]),
    ({"model_name": "a", "model_type": "distilbert", "type_vocab_size": 2}, ["type_vocab_size", "distilbert"]),
    ({"model_name": "a", "model_type": "modernbert", "local_attention": 7}, ["local_attention", "7", "odd"]),
    ({"model_name": "a", "model_type": "modernbert", "local_attention": None}, ["local_attention", "null"]),
    ({"model_name": "a", "model_type": "modernbert", "num_attention_heads": 256}, ["256", "pairs"]),
    ({"model_name": "a", "model_type": "albert"}, ["albert", "modernbert"]),
    ({"model_name": "a", "model_type": ["bert"]}, ["model_type"]),
    ({**GOOGLE, "local_attention": 64}, ["local_attention", "modernbert"]),
    ({"model_type": "modernbert", "layer_types": "all"}, ["layer_types", "all"]),
    ({"model_type": "modernbert", "layer_types": 5}, ["layer_types", "5"]),
    ({"model_type": "modernbert", "rope_parameters": [1]}, ["rope_parameters"]),
    ({"model_type": ["roberta"]}, ["model_type", "roberta"]),
    ({**GOOGLE, "hidden_size": 770}, ["770", "12", "divisible"]),
    ({**GOOGLE, "hidden_sise": 768}, ['"hidden_sise"', 'did you mean "hidden_size"']),
    ({**GOOGLE, "vocab_file": "/data/vocab.txt"}, ['"vocab_file"', "corpus folder"]),
    ({**GOOGLE, "hidden_act": "glu"}, ["'glu'", "gelu_tanh", "relu"]),
    ({**GOOGLE, "hidden_dropout_prob": 1.0, "num_hidden_layers": 0}, ["hidden_dropout_prob", "num_hidden_layers"]),
    ({**GOOGLE, "num_attention_heads": True}, ["num_attention_heads", "True"]),
    ({**GOOGLE, "model_type": "bert", "position_embedding_type": "relative_key"}, ["relative_key", "absolute"]),
    ({**GOOGLE, "model_type": "bert", "is_decoder": True}, ["is_decoder"]),
    ({**GOOGLE, "model_type": "gpt2"}, ["gpt2", "bert"]),
    ({"model_type": "bert", "hidden_size": "wide"}, ["hidden_size", "wide"]),
    ([1], ["list"]),
]


@pytest.mark.parametrize(("values", "told"), BAD, ids=[" ".join(told) for _, told in BAD])
def test_bad_file_is_told_in_one_message(tmp_path: Path, values: Any, told: list[str]) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ConfigError) as error:
        load_model_config(path)
    assert all(word in str(error.value) for word in [*told, str(path)])


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(ConfigError, match="bert_base_uncased"):
        load_model_config("bert_base_uncase")
    with pytest.raises(ConfigError, match="bert_tiny_uncased"):
        load_model_config("nothing like it")


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_model_config(tmp_path / "absent.json")
