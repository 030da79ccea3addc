"""Build corpora: `python -m bert_pytorch.corpus format|sample|vocab|encode|pack|verify|stats …`.

python -m bert_pytorch.corpus format --input my_texts --output corpus/formatted
python -m bert_pytorch.corpus vocab --input corpus/formatted --output corpus/vocab --vocab_size 8192
python -m bert_pytorch.corpus encode --input corpus/formatted --output corpus/encoded --vocab_file corpus/vocab
python -m bert_pytorch.corpus verify --input corpus/encoded

A stage imports what it needs itself: worker processes import this module again, each of them.
"""

import difflib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from bert_pytorch.config.command_line import COMMAND_LINE, parse_settings
from bert_pytorch.errors import EXIT_DONE, EXIT_STOPPED, EXIT_USAGE, ConfigError, front_door, report

PROGRAM = "python -m bert_pytorch.corpus"

_USAGE = f"""usage: {PROGRAM} {{sources,download,format,sample,vocab,encode,pack,verify,stats}} …

Build a corpus, one stage at a time (scripts/create_datasets.sh runs them all):

  sources  list what can be downloaded, and what is read as it is
  download fetch text, tasks, vocabularies or weights
  format   text, JSON lines or a Wikipedia dump to one sentence a line
  sample   a random sample of whole documents of formatted text
  vocab    formatted text to a vocabulary: WordPiece or byte-level BPE
  encode   formatted text and a vocabulary to shards
  pack     shards to Habana's packed layout
  verify   check finished shards
  stats    describe text or shards: sizes, lengths, unknown words, duplicates

{PROGRAM} STAGE --help lists a stage's options."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return front_door(lambda: _run(words))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _say(_USAGE)
        return EXIT_DONE if words else EXIT_USAGE
    stage, rest = words[0], words[1:]
    if stage not in _STAGES:
        near = difflib.get_close_matches(stage, _STAGES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(_STAGES)}."
        raise ConfigError(PROGRAM, [f"unknown stage {stage!r}: {hint}"])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # --processes says how many cores are used
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways of asking to stop end alike
    try:
        _STAGES[stage](rest)
    except KeyboardInterrupt:
        report("stopped. What is finished is kept: the same command goes on from there.")
        return EXIT_STOPPED
    return EXIT_DONE


def _sources(words: list[str]) -> None:
    from bert_pytorch.downloads.catalogue import sources_table

    if words and words[0] not in ("-h", "--help"):
        raise ConfigError(f"{PROGRAM} sources", [f"found {words[0]!r}, wanted no options."])
    _say(sources_table(PROGRAM))


def _download(words: list[str]) -> None:
    from bert_pytorch.downloads.catalogue import SOURCES, sources_table
    from bert_pytorch.downloads.download import download

    program = f"{PROGRAM} download"
    if not words or words[0] in ("-h", "--help"):
        if not words:
            raise ConfigError(program, [f"name a source first: {', '.join(SOURCES)}."])
        return _say(sources_table(PROGRAM))
    if words[0] not in SOURCES:
        near = difflib.get_close_matches(words[0], SOURCES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(SOURCES)}."
        raise ConfigError(program, [f"unknown source {words[0]!r}: {hint}"])
    source = SOURCES[words[0]]
    described = source.settings.__doc__ or ""
    resolved = parse_settings(source.settings, words[1:], program=f"{program} {source.name}", description=described)
    _say(f"downloaded: {download(source, resolved.settings)}")
    return None


def _format(words: list[str]) -> None:
    from bert_pytorch.corpus.formatting import FormatConfig, format_text

    resolved = parse_settings(FormatConfig, words, program=f"{PROGRAM} format", description=FormatConfig.__doc__ or "")
    folder = format_text(resolved.settings)
    _say(f"formatted text: {folder}")


def _sample(words: list[str]) -> None:
    from bert_pytorch.corpus.sampling import SampleConfig, draw_sample

    resolved = parse_settings(SampleConfig, words, program=f"{PROGRAM} sample", description=SampleConfig.__doc__ or "")
    folder = draw_sample(resolved.settings)
    _say(f"sample: {folder}")


def _vocab(words: list[str]) -> None:
    from bert_pytorch.corpus.vocabulary import VocabConfig, make_vocabulary

    resolved = parse_settings(VocabConfig, words, program=f"{PROGRAM} vocab", description=VocabConfig.__doc__ or "")
    folder = make_vocabulary(resolved.settings)
    _say(f"vocabulary: {folder}")


def _encode(words: list[str]) -> None:
    from bert_pytorch.corpus.encoding import EncodeConfig, encode
    from bert_pytorch.tokenization.tokenizer import load_tokenizer

    resolved = parse_settings(EncodeConfig, words, program=f"{PROGRAM} encode", description=EncodeConfig.__doc__ or "")
    config = resolved.settings
    assert config.vocab_file is not None
    said = resolved.origins["lowercase"] == COMMAND_LINE
    tokenizer = load_tokenizer(config.vocab_file, config.lowercase if said else None)
    for folder in encode(config, tokenizer, sys.argv):
        _say(f"shards: {folder}")


def _pack(words: list[str]) -> None:
    from bert_pytorch.corpus.packing import PackConfig, pack

    resolved = parse_settings(PackConfig, words, program=f"{PROGRAM} pack", description=PackConfig.__doc__ or "")
    _say(f"packed shards: {pack(resolved.settings)}")


def _verify(words: list[str]) -> None:
    from bert_pytorch.corpus.inspection.verification import VerifyConfig, verify

    resolved = parse_settings(VerifyConfig, words, program=f"{PROGRAM} verify", description=VerifyConfig.__doc__ or "")
    for seen in verify(resolved.settings):
        masked = f", {seen.masked:,} masked" if seen.masked else ""
        unknown = "" if seen.complete else "; no manifest: completeness unknown"
        _say(
            f"{seen.folder}: sound. {seen.shards} shard(s), {seen.sequences:,} sequences "
            f"({seen.held_out_sequences:,} held out), {seen.tokens:,} tokens{masked}{unknown}"
        )


def _stats(words: list[str]) -> None:
    from bert_pytorch.corpus.inspection.stats import StatsConfig, collect_stats

    resolved = parse_settings(StatsConfig, words, program=f"{PROGRAM} stats", description=StatsConfig.__doc__ or "")
    statistics = collect_stats(resolved.settings)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows no Unicode still shows the rest
    for line in statistics.report():
        _say(line)


def _say(text: str) -> None:
    print(text)  # noqa: T201 a front door


_STAGES: dict[str, Callable[[list[str]], None]] = {
    "sources": _sources,
    "download": _download,
    "format": _format,
    "sample": _sample,
    "vocab": _vocab,
    "encode": _encode,
    "pack": _pack,
    "verify": _verify,
    "stats": _stats,
}

if __name__ == "__main__":
    sys.exit(main())
