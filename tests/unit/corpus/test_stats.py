"""`stats`: its numbers against plain loops over the same text and the same files."""

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from bert_pytorch.corpus.inspection import text_stats
from bert_pytorch.corpus.inspection.histograms import add_histograms, draw_up, histogram_of, percentile
from bert_pytorch.corpus.inspection.set_stats import packed_rows
from bert_pytorch.corpus.inspection.stats import StatsConfig, collect_stats
from bert_pytorch.corpus.inspection.stats_report import chart_lines
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import make_rows
from tests.unit.corpus.conftest import Tool

PERCENTILES = (5, 25, 50, 75, 95, 99)


@pytest.fixture
def awkward_text(formatted_text: Path) -> Path:
    """Presidents' addresses, one of them twice, and words that the vocabulary does not have."""
    first = sorted(formatted_text.glob("*.txt"))[0]
    (formatted_text / "zz_copy.txt").write_bytes(first.read_bytes())
    strange = (
        "Snow \u2603 and \u2603 more .\n\u0393\u03b7 \U00013000 .\n\nSnow \u2603 and \u2603 more .\n\u65e5\u672c .\n"
    )
    (formatted_text / "zz_strange.txt").write_text(strange, encoding="utf-8")
    return formatted_text


def stats_of(tool: Tool, output: Path, *words: object) -> dict[str, Any]:
    said = tool("stats", "--output", output, *words)
    assert said.code == 0, said.err
    return json.loads((output / "stats.json").read_text(encoding="utf-8"))


def spread(lengths: list[int]) -> dict[str, float]:
    wanted = {"mean": round(float(np.mean(lengths)), 4), "min": min(lengths), "max": max(lengths)}
    cut = {f"p{share}": int(np.percentile(lengths, share, method="inverted_cdf")) for share in PERCENTILES}
    return wanted | cut


def test_text_is_counted_as_by_plain_loops_whatever_the_processes(
    tool: Tool, awkward_text: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_stats, "_SMALLEST_BLOCK", 20_000)
    words = ["--input", awkward_text, "--vocab_file", vocabulary]
    found = stats_of(tool, tmp_path / "one", *words, "--processes", 1)
    stats_of(tool, tmp_path / "three", *words, "--processes", 3)
    one, three = ((tmp_path / name / "stats.json").read_bytes() for name in ("one", "three"))
    assert one == three

    contents = [path.read_text(encoding="utf-8") for path in sorted(awkward_text.glob("*.txt"))]
    documents = [document.strip().split("\n") for text in contents for document in text.strip().split("\n\n")]
    lines = [line.strip() for document in documents for line in document]
    reference = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokens = {line: reference.encode(line, add_special_tokens=False).tokens for line in lines}
    every = [token for line in lines for token in tokens[line]]
    text = found["text"]
    assert (text["documents"], text["sentences"]) == (len(documents), len(lines))
    assert text["words"] == sum(len(line.split()) for line in lines)
    assert text["tokens"] == len(every)
    assert text["characters"] == sum(map(len, lines))
    assert abs(text["bytes"] - sum(len(content.encode()) for content in contents)) <= 2 * len(documents)  # blank lines
    assert text["tokens_a_sentence"] == spread([len(tokens[line]) for line in lines])
    assert text["tokens_a_document"] == spread([sum(len(tokens[line.strip()]) for line in doc) for doc in documents])
    use = text["vocabulary"]
    assert use["unknown_tokens"] == every.count("[UNK]") == 5
    assert use["unknown_rate"] == round(every.count("[UNK]") / len(every), 8)
    assert use["unknown_words"] == [["\u2603", 4], ["\U00013000", 1]]
    vocabulary_tokens = vocabulary.read_text(encoding="utf-8").split("\n")[:-1]
    ordinary = {t for t in vocabulary_tokens if not t.startswith("[unused")} - {
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    }  # fmt: skip
    assert use["never_used"] == len(ordinary - set(every))
    copies = collections.Counter("\n".join(map(str.strip, document)) for document in documents)
    assert text["duplicates"]["documents"] == len(documents) - len(copies) == 1
    assert text["duplicates"]["sentence_rate"] == round(1 - len(set(lines)) / len(lines), 6)
    frequent = collections.Counter("".join(lines)).most_common(5)
    assert text["characters_most_frequent"][:5] == [list(item) for item in frequent]
    assert abs(sum(text["scripts"].values()) - 1) < 1e-4
    assert {"Latin", "Greek", "Egyptian", "Cjk"} <= set(text["scripts"])
    assert (tmp_path / "one" / "stats.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_a_set_is_counted_as_by_plain_loops_whatever_the_processes(
    masking: str, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    command = ["--input", formatted_text, "--vocab_file", vocabulary, "--max_seq_len", 64, "--masking", masking]
    out = tmp_path / "o"
    assert tool("encode", "--output", out, *command, "--shard_sequences", 200, "--processes", 1).code == 0
    found = stats_of(tool, tmp_path / "one", "--input", out, "--processes", 1)
    if masking == "static":
        stats_of(tool, tmp_path / "three", "--input", out, "--processes", 3)
        assert (tmp_path / "one" / "stats.json").read_bytes() == (tmp_path / "three" / "stats.json").read_bytes()

    ((name, parts),) = found["sets"].items()
    (folder,) = out.glob("sequences_*")
    assert name == folder.name
    assert parts["train"]["documents"] + parts["eval"]["documents"] == 12
    assert parts["train"]["shards"] > 1
    for part in ("train", "eval"):
        lengths, labels, used = [], [], set()
        masked = collections.Counter[str]()
        for shard in folder.glob(f"{part}_*.hdf5"):
            with h5py.File(shard) as file:
                columns = {key: file[key][:] for key in file}
            for row, row_ids in enumerate(columns["input_ids"].tolist()):
                lengths.append(64 - row_ids.count(0))
                labels.append(columns["next_sentence_labels"][row])
                if masking == "static":
                    slots = zip(columns["masked_lm_positions"][row], columns["masked_lm_ids"][row], strict=True)
                    for place, original in slots:
                        if place:
                            shown = row_ids[place]
                            masked["mask" if shown == 103 else "kept" if shown == original else "random"] += 1
                            row_ids[place] = int(original)
                used |= set(row_ids)
        counts = parts[part]
        assert (counts["sequences"], counts["tokens"]) == (len(lengths), sum(lengths))
        assert counts["fill"] == round(sum(lengths) / (64 * len(lengths)), 6)
        assert counts["length_histogram"] == np.bincount(lengths, minlength=65).tolist()
        assert counts["tokens_a_sequence"] == spread(lengths)
        assert counts["random_next"] == round(float(np.mean(labels)), 6)
        assert counts["packed"]["rows"] == best_fit(lengths, 64)
        assert counts["vocabulary"]["never_used"] == 30522 - 999 - len(used - {0, 100, 101, 102})
        if masking == "static":
            total = sum(masked.values())
            assert counts["masked"] == {
                "tokens": total, "share": round(total / sum(lengths), 6),
                **{fate: round(masked[fate] / total, 6) for fate in ("mask", "random", "kept")},
            }  # fmt: skip


def test_sets_whose_folders_have_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = tmp_path / "a" / "set", tmp_path / "b" / "set"
    for folder in folders:
        write_shard(folder / "train_0.hdf5", make_rows(5), {})
    found = collect_stats(StatsConfig(input=folders, processes=1))
    assert list(found.values["sets"]) == [str(folder) for folder in folders]
    assert [chart.title for chart in found.charts] == [f"{folder}: length of training sequences" for folder in folders]


def best_fit(lengths: list[int], size: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(size - length)
    return len(rooms)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_packing_on_the_histogram_is_best_fit_decreasing(lengths: list[int]) -> None:
    assert packed_rows(np.bincount(lengths, minlength=21)) == best_fit(lengths, 20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**6), max_size=30), min_size=1, max_size=4))
def test_histograms_lose_no_number(parts: list[list[int]]) -> None:
    numbers = [number for part in parts for number in part]
    whole = add_histograms(histogram_of(np.array(part, np.int64)) for part in parts)
    assert np.repeat(whole.values, whole.counts).tolist() == sorted(numbers)
    chart = draw_up(whole, "t", "tokens", "texts")
    assert chart.counts.sum() == len(numbers)
    assert len(list(chart_lines(chart))) == len(chart.counts) + 1
    for share in PERCENTILES if numbers else ():
        assert percentile(whole, share) == np.percentile(numbers, share, method="inverted_cdf")


def test_without_matplotlib_there_is_text_and_one_line_says_what_to_install(awkward_text: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from bert_pytorch.corpus.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["stats", "--input", awkward_text, "--output", tmp_path / "s", "--processes", "1"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pip install -r requirements-extras.txt") == 1
    assert "Length of sentences" in done.stdout
    assert "words in a sentence" in done.stdout  # no vocabulary
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["stats.json"]
