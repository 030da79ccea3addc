"""Exact duplicates: the first of the input stays, whatever the division and the number of processes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus import duplicates, sources
from bert_pytorch.corpus.duplicates import repeated
from bert_pytorch.corpus.formatting import FormatConfig, format_text
from tests.unit.corpus.conftest import Tool, contents


@given(st.lists(st.integers(0, 2**128 - 1) | st.integers(0, 20) | st.sampled_from([2**64, 2**127, 2**127 + 1])))
@pytest.mark.parametrize("compared", [1, 7, 1 << 20])
def test_repeated_rows_are_those_that_a_set_has_seen(compared: int, values: list[int]) -> None:
    rows = np.array([(value >> 64, value & (2**64 - 1)) for value in values], np.uint64).reshape(-1, 2)
    seen: set[int] = set()
    wanted = [value in seen or seen.add(value) is not None for value in values]
    with pytest.MonkeyPatch.context() as small:
        small.setattr(duplicates, "_COMPARED", compared)
        assert repeated(rows).tolist() == wanted


documents = st.lists(st.sampled_from(["one.", "two.", " one. ", "one.\n", "o\u00adne.", "", " \n", "One.", "t w o."]))


@settings(max_examples=15, deadline=None)
@given(files=st.lists(documents, min_size=1, max_size=5))
def test_equal_documents_but_for_white_space_and_cleaning_stay_once(
    files: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("duplicates")
    texts = ["something at all", *(text for file in files for text in file)]
    files = [["something at all"], *files]
    for number, file in enumerate(files):
        path = folder / "in" / f"{number}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in file))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(sources, "SMALLEST_UNIT", 30)
        paths = {"input": (folder / "in",), "output": folder / "out"}
        format_text(FormatConfig(**paths, processes=1, deduplicate=True, newlines="join"))  # type: ignore[arg-type]
    wanted = list(dict.fromkeys(" ".join(text.replace("\u00ad", "").split()) for text in texts if text.strip()))
    found = "\n".join(path.read_text() for path in sorted((folder / "out").glob("*.txt"))).split("\n\n")
    assert [" ".join(document.split()) for document in found] == wanted
    counts = json.loads((folder / "out" / "formatted.json").read_text())["counts"]
    assert counts["documents"] == len(wanted)
    assert counts["duplicates"] + counts["documents"] + counts["blank_documents"] == len(texts)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    lines = [json.dumps({"text": f"document {number}. " * 30}) + "\n" for number in random.integers(0, 2000, 6000)]
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.jsonl").write_text("".join(lines[number::3]))
    monkeypatch.setattr(sources, "_HASH_SERIALLY", 1)
    made = []
    for processes in (1, 4):
        out = tmp_path / f"out{processes}"
        command = ("format", "--input", tmp_path / "in", "--output", out, "--processes", processes, "--deduplicate")
        assert tool(*command).code == 0
        made.append(contents(out))
        assert tool("sample", "--input", out, "--output", out / "s", "--bytes", "100K", "--shard_bytes", "30K",
                    "--processes", processes).code == 0  # fmt: skip
        made[-1] |= contents(out / "s")
    assert made[0] == made[1]
    assert len(made[0]) > 8
