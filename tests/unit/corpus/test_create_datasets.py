"""scripts/create_datasets.sh: all stages, each alone, and its own wrong calls."""

import bz2
import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bert_pytorch.shards.opening import open_shards
from bert_pytorch.vocabulary import read_vocabulary
from tests.support.data import REPOSITORY, shared_data
from tests.support.http_server import Fault, file_server


def create_datasets(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "scripts" / "create_datasets.sh"), *map(str, words)]
    environment = os.environ | {"PYTHON": sys.executable, "no_proxy": "127.0.0.1"}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


@pytest.fixture
def few_texts(tmp_path: Path) -> Path:
    folder = tmp_path / "some texts"  # a space, as people have
    folder.mkdir()
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:5]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_all_stages_build_both_lengths_and_a_second_start_changes_nothing(few_texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out put"
    options = ["-o", out, "-p", 1, "--input", few_texts, "--encode-type", "bert", "--vocab_size", 600, "--no-books"]
    options += ["--max_seq_len", 32, 64, "--seed", 5, "--eval_fraction", 0.4]
    said = create_datasets(*options)
    assert said.returncode == 0, said.stderr
    sets = {shards.sequence_length: shards for shards in map(open_shards, (out / "encoded").iterdir())}
    assert sorted(sets) == [32, 64]
    assert all(shards.has_next_sentence for shards in sets.values())
    assert open_shards(sets[32].paths[0].parent, "eval").num_sequences > 0
    assert len(sets[32].vocabulary.tokens) == 600  # type: ignore[union-attr]
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    assert create_datasets(*options).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times

    again = ["-o", out, "-p", 1, "--encode", "--encode-type", "roberta", "--max_seq_len", 32, "--eval_fraction", 0]
    for more, tokens in ([], 600), (["--vocab_size", 500, "--overwrite"], 500):
        said = create_datasets(*again, *more)
        assert said.returncode == 0, said.stderr
        (single,) = (out / "encoded").glob("*next_seq_task_false")
        assert len(open_shards(single).vocabulary.tokens) == tokens  # type: ignore[union-attr]


def test_stages_run_alone(few_texts: Path, tmp_path: Path) -> None:
    vocabulary = shared_data("vocab", "bert-base-uncased-vocab.txt")
    said = create_datasets("--output", tmp_path / "o", "--nproc", 1, "--format", "--input", few_texts)
    assert said.returncode == 0, said.stderr
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["formatted"]
    said = create_datasets("--output", tmp_path / "o", "--nproc", 1, "--encode", "--vocab_file", vocabulary)
    assert said.returncode == 0, said.stderr
    (folder,) = (tmp_path / "o" / "encoded").iterdir()
    assert folder.name == "sequences_lowercase_max_seq_len_512_next_seq_task_false"

    options = ["--output", tmp_path / "p", "--nproc", 1, "--encode", "--vocab_file", vocabulary]
    said = create_datasets(*options, "--input", tmp_path / "o" / "formatted")  # formatted text from elsewhere
    assert said.returncode == 0, said.stderr
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["encoded"]


def test_a_table_with_its_own_column_and_an_extended_vocabulary_become_shards(tmp_path: Path) -> None:
    base = read_vocabulary(shared_data("vocab", "bert-base-uncased-vocab.txt"))
    texts = [path.read_text() for path in sorted(shared_data("text", "movie_reviews").glob("*.txt"))[:8]]
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(texts)])
    options = ["-o", tmp_path / "o", "-p", 1, "--input", tmp_path / "texts.csv", "--text_field", "review"]
    options += ["--extend_vocab", shared_data("vocab", "bert-base-uncased-vocab.txt"), "--max_seq_len", 64]
    said = create_datasets(*options)
    assert (said.returncode, "say with --vocab_size how many" in said.stderr) == (2, True)
    said = create_datasets(*options, "--vocab_size", 30600)
    assert said.returncode == 0, said.stderr
    (folder,) = (tmp_path / "o" / "encoded").iterdir()
    vocabulary = open_shards(folder).vocabulary
    assert vocabulary is not None
    assert (len(vocabulary.tokens), vocabulary.tokens[:30522]) == (30600, base.tokens)


def test_download_feeds_format_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    pytest.importorskip("wikiextractor")
    pages = bz2.decompress(shared_data("wikipedia", "enwiki-sample-pages-articles.xml.bz2").read_bytes())
    dump = bz2.compress(pages[: pages.index(b"</page>", 600_000)] + b"</page>\n</mediawiki>\n")  # Punkt learns slowly
    book = shared_data("text", "inaugural", "1865-Lincoln.txt").read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        info = tarfile.TarInfo("books1/epubtxt/lincoln.txt")
        info.size = len(book)
        file.addfile(info, io.BytesIO(book))
    name = "simplewiki-20261101-pages-articles.xml.bz2"
    with file_server() as server:
        server.add(f"simplewiki/20261101/{name}", dump, faults=[Fault(drop_after=1000)])
        sums = f"{hashlib.sha1(dump).hexdigest()}  {name}\n".encode()
        server.add("simplewiki/latest/simplewiki-latest-sha1sums.txt", sums)
        options = ["-o", tmp_path / "o o", "-p", 1, "--download", "--format", "--language", "simple"]
        options += ["--mirror", f"{server.url}/gone", server.url, "--books-mirror", server.url]
        said = create_datasets(*options)
        assert said.returncode == 1
        assert f"{server.url}/books1.tar.gz\nput it here:" in said.stderr
        assert not (tmp_path / "o o" / "formatted").exists()
        server.add("books1.tar.gz", archive.getvalue())
        said = create_datasets(*options)
        assert said.returncode == 0, said.stderr
        assert [request.path for request in server.requests].count(f"/simplewiki/20261101/{name}") == 2  # dropped once
        text = "".join(path.read_text() for path in (tmp_path / "o o" / "formatted").glob("*.txt"))
        assert "With malice toward none" in text
        assert len(text) > 20 * len(book)  # articles too
        said = create_datasets("-o", tmp_path / "w", "--download", "--no-books", *options[6:11])
        assert said.returncode == 0, said.stderr
    assert [path.name for path in (tmp_path / "w" / "download").iterdir()] == ["wikipedia"]
    assert not (tmp_path / "w" / "formatted").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--output is missing"),
        (["-o"], 2, "-o: no value follows it"),
        (["-o", "x", "--download", "--language", "../x"], 2, "--language: found '../x'"),
        (["-o", "x", "--download", "--mirror"], 2, "--mirror: no address follows it"),
        (["-o", "x", "--encode-type", "gpt"], 2, "found 'gpt', wanted bert or roberta"),
        (["-o", "x", "-p", "many"], 2, "found 'many', wanted a whole number"),
        (["-o", "x", "--fromat"], 2, "unknown option --fromat"),
        (["-o", "x", "--format"], 2, "--input is missing"),
        (["-o", "x", "--input"], 2, "--input: no path follows it"),
        (["-o", "x", "--vocab_file", "v", "--vocab_size", "9"], 2, "--vocab_file contradicts --vocab_size"),
        (["-o", "x", "--vocab_file", "v", "--vocab_kind", "byte_bpe"], 2, "--vocab_file contradicts --vocab_size"),
        (["-o", "/tmp/nowhere-at-all", "--encode"], 1, "/tmp/nowhere-at-all/formatted: there is no such file"),
    ],
)
def test_wrong_calls_get_one_message(words: list[str], code: int, message: str) -> None:
    said = create_datasets(*words)
    assert said.returncode == code
    assert said.stderr.count("error:") == 1
    assert message in said.stderr


def test_python_is_found_as_by_the_other_scripts() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    command = [str(REPOSITORY / "scripts" / "create_datasets.sh"), "-o", "/tmp/nowhere-at-all", "--encode"]
    said = subprocess.run(
        command, env=environment | {"BERT_PYTORCH_PYTHON": "/bin/false"}, cwd="/", capture_output=True, text=True
    )
    assert said.returncode == 1
    assert "BERT_PYTORCH_PYTHON is /bin/false" in said.stderr
    assert said.stderr.count("error:") == 1


def test_a_failing_stage_stops_the_script(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xff")
    said = create_datasets("-o", tmp_path / "o", "--input", tmp_path / "bad.txt")
    assert said.returncode == 1
    assert "not UTF-8" in said.stderr
    assert not (tmp_path / "o" / "vocab").exists()
    assert not (tmp_path / "o" / "encoded").exists()
