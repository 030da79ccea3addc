"""`format` and `vocab`: every kind of input, what a document is, and what is kept between starts."""

import gzip
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from nltk.tokenize.punkt import PunktParameters

from bert_pytorch.corpus import format_units, formatting, punkt
from bert_pytorch.corpus.inputs import wikipedia
from bert_pytorch.corpus.inputs.stretches import ReadOptions
from bert_pytorch.corpus.sentences import SplitterName
from bert_pytorch.corpus.sources import find_sources, plan_units, read_unit
from bert_pytorch.files import sha256_of
from bert_pytorch.tokenization.tokenizer import load_tokenizer
from tests.support.data import shared_data
from tests.unit.corpus.conftest import Tool, contents


def formatted_documents(folder: Path) -> list[list[str]]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("formatted_*.txt")))
    return [document.split("\n") for document in text.strip().split("\n\n")]


def write_lines(path: Path, records: list[dict[str, object]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(record) for record in records) + "\n")
    return path


def documents_of(*paths: Path, documents: str = "auto") -> list[str]:
    units = plan_units(find_sources(paths), ReadOptions(documents))  # type: ignore[arg-type]
    return [text for unit in units for text in read_unit(unit)]


def test_what_a_document_is_in_text_files(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("many/a.txt", "many/b.txt", "alone.txt"):
        (tmp_path / name).write_text("one\n\ntwo\n")
    assert documents_of(tmp_path / "many") == ["one\n\ntwo\n"] * 2
    assert documents_of(tmp_path / "many", documents="blank_line") == ["one", "two"] * 2
    assert documents_of(tmp_path / "alone.txt") == ["one", "two"]
    assert documents_of(tmp_path / "alone.txt", documents="file") == ["one\n\ntwo\n"]
    (tmp_path / "many" / "large.txt").write_text("word \n" * 800_000 + "\n\nmore")
    assert len(documents_of(tmp_path / "many")) == 4


def test_output_files_are_bounded(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_units, "FILE_BYTES", 1000)
    texts = [f"This is document number {index}. It is short." for index in range(200)]
    path = write_lines(tmp_path / "x.jsonl.gz", [{"text": text} for text in texts])
    assert tool("format", "--input", path, "--output", tmp_path / "o", "--processes", 1).code == 0
    sizes = [file.stat().st_size for file in (tmp_path / "o").glob("formatted_*.txt")]
    assert len(sizes) > 5
    assert max(sizes) < 1100
    assert [" ".join(document) for document in formatted_documents(tmp_path / "o")] == texts


def test_formatting_goes_on_where_it_was(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_pytorch.corpus.sources.SMALLEST_UNIT", 30000)
    text = shared_data("text", "inaugural")
    options = ("--processes", 1, "--deduplicate", "--splitter_sample_bytes")
    assert tool("format", "--input", text, "--output", tmp_path / "whole", *options, 50000).code == 0
    command = ("format", "--input", text, "--output", tmp_path / "o", *options)
    with monkeypatch.context() as until:
        left = iter([formatting.format_unit] * 5)
        until.setattr(formatting, "format_unit", lambda task: next(left)(task))  # the sixth piece fails
        assert tool(*command, 50000).code == 1
    kept = tmp_path / "o" / "formatted_00001.txt"
    time_kept = kept.stat().st_mtime_ns
    (tmp_path / "o" / "formatted_00002.txt").unlink()
    (tmp_path / "o" / ".partial-abc-formatted_00002.txt").write_text("half a")
    (tmp_path / "o" / ".work" / "units" / ".partial-abc-00002.json").write_text("{")
    assert tool(*command, 50000).code == 0
    before = contents(tmp_path / "o")
    assert before == contents(tmp_path / "whole")
    assert kept.stat().st_mtime_ns == time_kept
    (tmp_path / "o" / "formatted_00003.txt").unlink()  # from a finished build
    assert tool(*command, 50000).code == 0
    assert contents(tmp_path / "o") == before
    assert kept.stat().st_mtime_ns == time_kept
    said = tool(*command, 50001)
    assert said.code == 1
    assert "splitter_sample_bytes 50000 → 50001" in said.err
    assert tool(*command, 50001, "--overwrite").code == 0


def test_the_package_never_imports_wikiextractor() -> None:
    sources = Path(wikipedia.__file__).parents[1].rglob("*.py")
    assert not any("import wikiextractor" in path.read_text(encoding="utf-8") for path in sources)


@pytest.mark.parametrize("casing", ["--lowercase", "--no-lowercase"])
def test_vocab_trains_and_is_kept(tool: Tool, formatted_text: Path, tmp_path: Path, casing: str) -> None:
    command = ("vocab", "--input", formatted_text, "--output", tmp_path / "v", "--vocab_size", 700, casing)
    said = tool(*command)
    assert said.code == 0, said.err
    tokenizer = load_tokenizer(tmp_path / "v")
    assert len(tokenizer.vocabulary.tokens) == 700
    assert tokenizer.vocabulary.lowercase == (casing == "--lowercase")
    before = contents(tmp_path / "v")
    assert tool(*command).code == 0
    assert contents(tmp_path / "v") == before
    said = tool(*command, "--seed", 9)
    assert said.code == 1
    assert "seed 12345 → 9" in said.err
    out = tmp_path / "e"
    said = tool("encode", "--input", formatted_text, "--output", out, "--vocab_file", tmp_path / "v", "--processes", 1)
    assert said.code == 0, said.err
    assert next(out.iterdir()).name.startswith("sequences_lower" if casing == "--lowercase" else "sequences_upper")


def test_vocab_from_a_sample_takes_whole_documents_by_seed(tool: Tool, formatted_text: Path, tmp_path: Path) -> None:
    sizes = []
    for seed in (1, 2, 1):
        out = tmp_path / f"{len(sizes)}"
        options = ("--vocab_size", 20000, "--sample_bytes", 20000, "--seed", seed)
        assert tool("vocab", "--input", formatted_text, "--output", out, *options).code == 0
        sizes.append((out / "vocab.txt").read_bytes())
    assert sizes[0] == sizes[2] != sizes[1]


def test_two_builds_in_one_folder_and_process_use_their_own_parameters(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("He met approx. Nine people. They left.")
    empty = {
        "abbreviations": [],
        "collocations": [],
        "sentence_starters": [],
        "orthographic_context": {},
        "origin": "x",
    }
    seen = []
    for abbreviations in ([], ["approx"]):
        parameters = tmp_path / f"parameters_{len(abbreviations)}.json"
        parameters.write_text(json.dumps({**empty, "abbreviations": abbreviations}))
        words = ["--input", tmp_path / "text.txt", "--output", tmp_path / "out", "--processes", 1, "--overwrite"]
        assert tool("format", *words, "--splitter_parameters", parameters).code == 0
        seen.append((tmp_path / "out" / "formatted_00000.txt").read_text().count("\n"))
        record = json.loads((tmp_path / "out" / "formatted.json").read_text())["splitter"]
        assert record["origin"] == f"parameters of {parameters.name}"
        assert record["parameters_sha256"] == sha256_of(tmp_path / "out" / "punkt.json")
    assert seen == [3, 2]


def test_truncated_text_is_made_again_and_work_of_a_killed_end_goes(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One sentence. Another one.\n\nA second document.")
    words = ["--input", tmp_path / "text.txt", "--output", tmp_path / "out", "--processes", 1]
    assert tool("format", *words).code == 0
    made = tmp_path / "out" / "formatted_00000.txt"
    whole = made.read_bytes()
    made.write_bytes(whole[:10])
    (tmp_path / "out" / ".work" / "units").mkdir(parents=True)
    assert tool("format", *words).code == 0
    assert made.read_bytes() == whole
    (tmp_path / "out" / ".work").mkdir()
    before = made.stat().st_mtime_ns
    assert tool("format", *words).code == 0
    assert made.stat().st_mtime_ns == before
    assert not (tmp_path / "out" / ".work").exists()


def test_punkt_learns_from_the_beginning_of_a_huge_document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "huge.txt").write_text("A sentence of a book. " * 100_000)
    learnt: list[int] = []

    def learn(texts: Iterable[str]) -> PunktParameters:
        learnt.extend(map(len, texts))
        return PunktParameters()

    monkeypatch.setattr("bert_pytorch.corpus.punkt.learn", learn)
    config = formatting.FormatConfig(
        input=(tmp_path / "huge.txt",),
        output=tmp_path / "out",
        documents="file",
        splitter_sample_bytes=5000,
        processes=1,
    )
    formatting.format_text(config)
    assert sum(learnt) == 5000


@pytest.mark.parametrize("splitter", ["newline", "nltk"])
def test_a_huge_document_takes_a_few_times_its_size(tmp_path: Path, splitter: SplitterName) -> None:
    path, parameters = tmp_path / "huge.txt", tmp_path / "punkt.json"
    path.write_text("wrapped text goes on and on\n" * 300_000)
    parameters.write_text(json.dumps(punkt.to_json(PunktParameters())))
    config = formatting.FormatConfig(
        input=(path,),
        output=tmp_path / "out",
        documents="file",
        deduplicate=True,
        splitter=splitter,
        splitter_parameters=parameters if splitter == "nltk" else None,
        processes=1,
    )
    tracemalloc.start()
    try:
        formatting.format_text(config)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7 * path.stat().st_size  # 16 times with lists of all its words and lines
