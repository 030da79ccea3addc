"""Every shipped configuration loads, describes a model that can be built, and names no path."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_pytorch.config.files import read_mapping
from tests.support.data import REPOSITORY

CONFIG = REPOSITORY / "config"
PATH_ENDINGS = (".json", ".yaml", ".yml", ".txt", ".hdf5", ".pt", ".bin", ".safetensors", ".csv", ".gz", ".bz2", ".xml")


def shipped(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".yaml", ".yml"))


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIG))


def texts_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


def paths_in(value: Any) -> list[str]:
    return [text for text in texts_in(value) if "/" in text or "\\" in text or text.lower().endswith(PATH_ENDINGS)]


@pytest.mark.parametrize("path", shipped(CONFIG), ids=name_of)
def test_a_shipped_configuration_holds_no_path(path):
    assert paths_in(read_mapping(path)) == []


@pytest.mark.parametrize("text", ["data/encoded", "C:\\data", "vocab.txt", "weights.PT"])
def test_a_path_is_noticed_at_any_depth(text):
    assert paths_in({"seed": 42, "a": [{"b": text}]}) == [text]


def test_names_and_numbers_are_not_taken_for_paths():
    assert paths_in({"model_config_file": "bert_base_uncased", "optimizer": "lamb", "learning_rate": 6e-3}) == []


@pytest.mark.parametrize("path", shipped(CONFIG / "models"), ids=name_of)
def test_a_shipped_model_can_be_built(path):
    from bert_pytorch.models.build import build_model
    from bert_pytorch.models.config import load_model_config

    config = load_model_config(path)
    with torch.device("meta"):
        model = build_model(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters > config.num_hidden_layers * 12 * config.hidden_size * config.hidden_size * 0.9
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("path", shipped(CONFIG / "pretraining"), ids=name_of)
def test_a_shipped_pretraining_configuration_loads_and_names_a_shipped_model_or_continues_any(path):
    from bert_pytorch.config.command_line import parse_settings
    from bert_pytorch.models.config import load_model_config
    from bert_pytorch.pretraining.config import PretrainingConfig

    continues = path.stem.startswith("continue")
    words = ["--config_file", str(path), "--input_dir", "shards", "--output_dir", "run"]
    words += ["--init_checkpoint", "encoder"] if continues else []
    if read_mapping(path).get("init_from_teacher_layers"):
        words += ["--teacher", "run_of_a_teacher"]  # a path, which no shipped configuration holds
    resolved = parse_settings(PretrainingConfig, words, program="test", description="test")
    assert {resolved.origins[key] for key in read_mapping(path)} == {str(path)}
    assert (resolved.settings.model_config_file is None) == continues
    if not continues:
        load_model_config(resolved.settings.model_config_file)


@pytest.mark.parametrize("path", shipped(CONFIG / "finetuning"), ids=name_of)
def test_a_shipped_finetuning_configuration_loads_in_its_program(path):
    from bert_pytorch.config.command_line import parse_settings
    from bert_pytorch.finetuning.glue import GlueRunConfig
    from bert_pytorch.finetuning.ner import NerRunConfig
    from bert_pytorch.finetuning.squad import SquadRunConfig

    file = ["--train_file", "train"]
    programs = {
        "ner": (NerRunConfig, file),
        "squad": (SquadRunConfig, file),
        "glue": (GlueRunConfig, ["--task_name", "all", "--data_dir", "glue"]),
    }
    settings, own_words = programs[path.stem.partition("_")[0]]
    words = [
        "--config_file",
        str(path),
        "--init_checkpoint",
        "encoder",
        "--output_dir",
        "run",
        "--do_train",
        *own_words,
    ]
    resolved = parse_settings(settings, words, program="test", description="test")
    assert {resolved.origins[key] for key in read_mapping(path)} == {str(path)}


def test_the_shipped_json_is_written_in_one_form():
    """Indented JSON with one key a line, so that a difference between two runs' files is a line."""
    for path in (path for path in shipped(CONFIG) if path.suffix == ".json"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) >= len(json.loads(text)), path
