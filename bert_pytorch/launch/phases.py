"""Options of each phase, and how its sessions ended, by the rows that they wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.config.files import read_mapping
from bert_pytorch.launch.config import REPOSITORY

DEFAULT_CONFIG = "bert_large_uncased_phase{phase}.json"


class Ends(NamedTuple):
    """Ends of sessions in an output folder."""

    reasons: tuple[str, ...]
    """Of all sessions, in order (`tracking.records.EndReason`)."""
    finished_phases: frozenset[int]


def words_of_phase(words: Sequence[str], phase: str) -> list[str]:
    """Return the options of one phase of pretraining.

    `--name_phase1 value …` becomes `--name value …` in phase 1 and is left out in phase 2; all else is given to both.
    Without a --config_file it is the phase's one of BERT-large.
    """
    kept: list[str] = []
    keeping = True
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            base, _, number = flag.replace("-phase", "_phase").rpartition("_phase")
            if number in ("1", "2") and base:
                keeping, word = number == phase, base + equals + value
            else:
                keeping = True
        if keeping:
            kept.append(word)
    if value_of(kept, "config_file") is None:
        kept += ["--config_file", str(REPOSITORY / "config" / "pretraining" / DEFAULT_CONFIG.format(phase=phase))]
    return kept


def value_of(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option among a script's words, the last if it is given several times."""
    found = None
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            found = value if equals else "".join(words[index + 1 : index + 2])
    return found


def output_folder(words: Sequence[str]) -> Path | None:
    """Return the --output_dir of a script's words, or of its --config_file, with `{run_name}` replaced."""
    config = value_of(words, "config_file")
    values: dict[str, Any] = read_mapping(Path(config)) if config else {}
    folder = value_of(words, "output_dir") or values.get("output_dir")
    if not folder:
        return None
    name = value_of(words, "run_name") or values.get("run_name") or (Path(config).stem if config else "pretraining")
    return Path(str(folder).replace("{run_name}", str(name)))


def read_ends(folder: Path | None) -> Ends:
    """Read `metrics.jsonl` of an output folder; nothing is there before the first session."""
    path = None if folder is None else folder / "metrics.jsonl"
    reasons: list[str] = []
    finished: set[int] = set()
    phase = 1
    for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed session
        if row.get("event") == "start":
            phase = row.get("phase", 1)
        elif row.get("event") == "end":
            reasons.append(str(row.get("reason")))
            if row.get("reason") == "finished":
                finished.add(phase)
    return Ends(tuple(reasons), frozenset(finished))
