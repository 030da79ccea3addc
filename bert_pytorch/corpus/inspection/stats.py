"""What text or a set of shards is like: the settings of `stats` and its story."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.corpus.executors.pool import PoolConfig, check_pool
from bert_pytorch.corpus.inspection.histograms import Chart
from bert_pytorch.corpus.inspection.plots import save_charts
from bert_pytorch.corpus.inspection.set_stats import set_stats
from bert_pytorch.corpus.inspection.stats_report import chart_lines, set_report, text_report
from bert_pytorch.corpus.inspection.text_stats import text_stats
from bert_pytorch.errors import ConfigError, MissingDependencyError
from bert_pytorch.files import atomic_write_json
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.opening import find_shards, open_shards
from bert_pytorch.vocabulary import read_vocabulary

logger = logging.getLogger(__name__)

STATS_JSON, STATS_PNG = "stats.json", "stats.png"


class StatsConfig(PoolConfig):
    """Describe formatted text or sets of shards: sizes, lengths, unknown tokens, duplicates, padding, masks."""

    input: tuple[Path, ...] = ()
    """Formatted text (files, folders of *.txt), sets of shards (folders, *.hdf5), or both. A folder with shards
    in it is not searched for text."""
    output: Path | None = None
    """Folder for stats.json and, where matplotlib is installed, stats.png. Without it the text alone is printed."""
    vocab_file: Path | None = None
    """vocab.txt or tokenizer.json, or a folder with one; the one beside the shards where sets are given. Text without
    any is counted in words."""
    lowercase: bool | None = None
    """Casing of a vocab.txt where no file beside it says it; a tokenizer.json knows its own."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name formatted text, or a folder with shards."


class Statistics(NamedTuple):
    """What was found."""

    values: dict[str, Any]
    """As in stats.json: `text`, and `sets` by the name of their folders."""
    charts: list[Chart]

    def report(self) -> Iterator[str]:
        """Yield everything as lines of text."""
        if "text" in self.values:
            yield from text_report(self.values["text"])
        for name, found in self.values["sets"].items():
            yield from set_report(name, found)
        for chart in self.charts:
            yield ""
            yield from chart_lines(chart)


def collect_stats(config: StatsConfig) -> Statistics:
    """Count all inputs and write `config.output`, if there is one.

    Raises:
        InputError: if an input cannot be used.
    """
    check_pool(config)
    sets, texts = _sort_inputs(config.input)
    given = None if config.vocab_file is None else read_vocabulary(config.vocab_file, config.lowercase)
    values: dict[str, Any] = {"sets": {}}
    charts: list[Chart] = []
    if texts:
        values["text"], charts = text_stats(texts, given or _vocabulary_of(sets), config)
    for folder in sets:
        name = folder.name if [other.name for other in sets].count(folder.name) == 1 else str(folder)
        values["sets"][name], more = set_stats(folder, name, given, config)
        charts += more
    if config.output is not None:
        atomic_write_json(config.output / STATS_JSON, values)
        try:
            save_charts(config.output / STATS_PNG, charts)
        except MissingDependencyError as error:
            logger.warning("no picture: %s", error)
    return Statistics(values, charts)


def _sort_inputs(paths: tuple[Path, ...]) -> tuple[list[Path], list[Path]]:
    """Tell folders of shards, each of one set, from text."""
    sets: dict[Path, None] = {}
    texts = []
    for path in paths:
        shards = []
        if path.is_dir() or path.suffix == ".hdf5":
            shards = [*find_shards(path, "train"), *find_shards(path, "eval")]
        if shards:
            sets |= dict.fromkeys(sorted({shard.parent for shard in shards}) if path.is_dir() else [path])
        else:
            texts.append(path)
    return list(sets), texts


def _vocabulary_of(sets: list[Path]) -> Vocabulary | None:
    """Return the vocabulary beside sets, which must be the same for all."""
    found = {open_shards(path, "train" if find_shards(path) else "eval").vocabulary for path in sets}
    if len(found) > 1:
        raise ConfigError(
            "--vocab_file", ["the sets have different vocabularies; name the one to count the text with."]
        )
    return found.pop() if found else None
