"""What a run records of the configuration of its data, and reading it back."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bert_pytorch.config.settings import problems_of
from bert_pytorch.data.config import DataConfig
from bert_pytorch.errors import ConfigError, InputError


def recorded_data(config: DataConfig) -> dict[str, Any]:
    """Return every field of `DataConfig` as JSON has it; local paths are absolute, so that they hold from anywhere."""
    values = config.model_dump(mode="json", include=set(DataConfig.model_fields))
    values["input_dir"] = [str(Path(name).absolute()) if Path(name).exists() else name for name in config.input_dir]
    values["vocab_file"] = None if config.vocab_file is None else str(config.vocab_file.absolute())
    return values


def data_from_record(values: dict[str, Any], where: str) -> DataConfig:
    """Return the configuration that was recorded.

    Args:
        values: as `recorded_data` returns them.
        where: they stand, for messages.

    Raises:
        InputError: naming each value that is none.
    """
    try:
        return DataConfig.model_validate(values).checked(where)
    except ValidationError as error:
        problems = problems_of(error, DataConfig)
    except ConfigError as error:
        problems = error.problems
    raise InputError(f"{where}: it is of another version, or damaged: {' '.join(problems)}")
