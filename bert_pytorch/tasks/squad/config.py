"""Configuration of SQuAD: files, windows and answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bert_pytorch.config.settings import problems_of
from bert_pytorch.errors import ConfigError
from bert_pytorch.tasks.squad.answers import AnswerConfig
from bert_pytorch.tasks.squad.windows import SPECIAL_TOKENS, WindowConfig

EXPORTED_KEY = "question_answering"
"""Key of an exported `config.json` under which stands how its model was used."""


class UseConfig(WindowConfig, AnswerConfig):
    """How a model of answers is used: its windows, and what is made of its scores."""


class SquadConfig(UseConfig):
    """Keys of SQuAD; those of NVIDIA's run_squad.py."""

    train_file: tuple[Path, ...] = ()
    """JSON files of SQuAD's layout to learn from; needed for --do_train."""
    predict_file: tuple[Path, ...] = ()
    """JSON files of SQuAD's layout to answer; needed for --do_eval and --do_predict."""
    verbose_logging: bool = False
    """Name every question that cannot be trained on, not only the first."""


def exported_settings(config: UseConfig) -> dict[str, Any]:
    """Return the keys of `config.json` that say how a model is used."""
    return {EXPORTED_KEY: {name: getattr(config, name) for name in UseConfig.model_fields}}


def settings_of(exported: Mapping[str, Any], positions: int, where: str) -> UseConfig:
    """Return how a model is used by its `config.json`; by default, as far as it has positions, as NVIDIA's is.

    Args:
        exported: content of `config.json`.
        positions: of the model.
        where: it comes from, for messages.

    Raises:
        ConfigError: if what it says is not possible.
    """
    values = exported.get(EXPORTED_KEY)
    if values is None:
        longest = min(UseConfig().max_seq_length, positions)
        shorter = min(UseConfig().max_query_length, (longest - SPECIAL_TOKENS) // 2)
        return UseConfig(max_seq_length=longest, max_query_length=shorter)
    if not isinstance(values, Mapping):
        raise ConfigError(where, [f'"{EXPORTED_KEY}": found {str(values)[:60]!r}, wanted keys with values.'])
    try:
        settings = UseConfig.model_validate(dict(values)).checked(where)
    except ValidationError as error:
        raise ConfigError(where, problems_of(error, UseConfig, f'"{EXPORTED_KEY}": "{{}}"')) from None
    if settings.max_seq_length > positions:
        problem = f'"max_seq_length" is {settings.max_seq_length}, but the model has {positions} positions.'
        raise ConfigError(where, [problem])
    return settings
