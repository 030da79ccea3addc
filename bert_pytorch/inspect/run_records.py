"""What `metrics.jsonl` of a run says about the data of an update; a file that anybody may have touched."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.recorded import data_from_record
from bert_pytorch.errors import InputError

METRICS = "metrics.jsonl"


class Exclusion(NamedTuple):
    """A shard that was left out in the update's session."""

    step: int
    """The first update without it."""
    shard: str
    """Its name, as `Corpora.exclude` takes it."""


class RecordedUpdate(NamedTuple):
    """Where an update's samples are, as far as the run recorded it; steps are phases added up."""

    step: int
    """Number of the update."""
    data: DataConfig
    """Of its session."""
    phase_start: int
    """Updates done before its phase."""
    world_size: int
    """Ranks of its session."""
    next_sentence: bool
    """Whether the model learnt from next-sentence labels."""
    lowercase: bool
    """Casing of the vocabulary."""
    sequences: int
    """In the training data."""
    excluded: tuple[Exclusion, ...]
    """In the order in which they were left out."""
    known_step: int
    """The last update before it after which the position is known."""
    known_position: int
    """Samples of the phase consumed then."""


def find_update(run: Path, step: int) -> RecordedUpdate:
    """Find what a run recorded about an update.

    Raises:
        InputError: if the run has no such update, or its metrics do not say, or are damaged.
    """
    path = run / METRICS
    start: _Row | None = None
    excluded: list[Exclusion] = []
    last = known_step = known_position = 0
    for row in _rows(path):
        number = row.whole("step")
        if row.event in ("train", "end"):
            last = max(last, number)
        if row.event == "start" and not {"data", "phase_start"} & row.values.keys():
            raise InputError(
                f"{run}: it is a fine-tuning run, whose sequences stand in its task's files in their order."
            )
        if row.event == "start" and number < step:
            start, known_step, known_position = row, number, row.whole("samples")
            excluded = [Exclusion(number, name) for name in row.texts("excluded_shards")]
        elif row.event == "exclude" and number <= step:
            excluded.append(Exclusion(number, row.text("shard")))
        elif row.event == "train" and number <= step and "samples" in row.values:
            after = row.whole("samples")
            # An update's own row counts: a skipped update before it took samples that no row tells of.
            known_step, known_position = (
                (number, after) if number < step else (step - 1, after - row.whole("sequences"))
            )
    if step > last:
        raise InputError(f"{run}: update {step} was not reached, its last one is {last}. Give a --step up to that.")
    if start is None:
        raise InputError(
            f"{path}: it does not say what data update {step} was made of: that session was of an older version. "
            "Give a --step of a later session."
        )
    return RecordedUpdate(
        step=step,
        data=data_from_record(start.mapping("data"), start.where),
        phase_start=start.whole("phase_start", most=start.whole("step")),
        world_size=start.whole("world_size", least=1),
        next_sentence=start.flag("next_sentence"),
        lowercase=start.flag("lowercase"),
        sequences=start.whole("sequences"),
        excluded=tuple(excluded),
        known_step=known_step,
        known_position=known_position,
    )


class _Row(NamedTuple):
    """A row whose values are looked at before they are used."""

    where: str
    values: dict[str, Any]

    @property
    def event(self) -> str:
        return self.text("event")

    def whole(self, name: str, least: int = 0, most: int = 2**63 - 1) -> int:
        value = self.values.get(name)
        if type(value) is not int or not least <= value <= most:
            raise self._damaged(name, f"a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self._damaged(name, "true or false")
        return value

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self._damaged(name, "a text")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._damaged(name, "a list of texts")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self._damaged(name, "an object")
        return value

    def _damaged(self, name: str, wanted: str) -> InputError:
        found = repr(self.values.get(name))[:60] if name in self.values else "nothing"
        return _damaged(self.where, f"{name}: found {found}, wanted {wanted}")


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the whole rows of a file; a last line without an end is of a kill, or is being written."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Name the --output_dir of a run.")
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            where = f"{path}, line {number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                raise _damaged(where, f"found {line[:40].strip()!r}, wanted a JSON object") from None
            if not isinstance(values, dict):
                raise _damaged(where, f"found {line[:40].strip()!r}, wanted a JSON object")
            yield _Row(where, values)


def _damaged(where: str, problem: str) -> InputError:
    return InputError(f"{where}: {problem}. The file is damaged: bring the line back from a copy, or remove it.")
