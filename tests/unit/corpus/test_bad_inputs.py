"""What a person can get wrong with the corpus tool: one message, the contracted exit code, nothing half-written."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bert_pytorch.files import exclusive_lock
from bert_pytorch.records import SPECIAL_TOKENS
from tests.support.data import REPOSITORY
from tests.unit.corpus.conftest import Tool

VOCABULARY = "\n".join([*SPECIAL_TOKENS, "the", "cat", "sat", "##s", "."]) + "\n"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with good text, a vocabulary, and every kind of bad file."""
    (tmp_path / "vocab.txt").write_text(VOCABULARY)
    (tmp_path / "good.txt").write_text("the cat sat .\nthe cats sat .\n\nthe cat .\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n\t\n")
    (tmp_path / "control.txt").write_text("\x01\x02\n")
    (tmp_path / "nul.txt").write_bytes(b"the cat\x00sat .\n")
    (tmp_path / "latin.txt").write_bytes("the caf\u00e9 .".encode("latin-1"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "bad.jsonl").write_text('{"text": "the cat ."}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "field.jsonl").write_text('{"body": "the cat", "id": 3}\n')
    (tmp_path / "number.jsonl").write_text('{"text": 3}\n')
    (tmp_path / "nul.jsonl").write_text('{"text": "a\\u0000b"}\n')
    (tmp_path / "surrogate.jsonl").write_text('{"text": "a\\ud800b"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "the cat sat ."}\n' * 99)[:-12])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"text": "the cat sat ."}\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("the\ncat\n")
    return tmp_path


FORMAT = "format --output {work}/out --processes 1 "
ENCODE = "encode --output {work}/out --processes 1 "
ENCODE_GOOD = ENCODE + "--input {work}/good.txt --vocab_file {work}/vocab.txt "
CASES = [
    ("", 2, "usage: python -m bert_pytorch.corpus"),
    ("formatt", 2, "unknown stage 'formatt': did you mean format?"),
    ("pack", 2, "--input is missing: name a set of shards, made by"),
    ("pack --input x --output x", 2, "--output: found a folder in the input's or that itself, wanted another"),
    ("pack --input_dir x --output_dir y", 2, "--input"),
    ("pack --max_sequence_length 512", 2, "the shards say how long their rows are"),
    ("pack --max_predictions_per_sequence 80", 2, "--max_predictions_per_seq"),
    ("pack --input {work} --output {work}2", 1, "no shard (*.hdf5) found"),
    ("pack --input {work}/none --output {work}2", 1, "no such file or folder"),
    ("sample --input x --output y", 2, "found none of them, wanted one of --sentences"),
    ("sample --input x --output y --bytes 1M --documents 3", 2, "found --documents and --bytes, wanted one of"),
    ("sample --input x --output y --bytes many", 2, "--bytes: found 'many', wanted a number such as 250000"),
    ("sample --input x --output y --sentences 0", 2, "--sentences: found '0', wanted more than 0"),
    ("sample --input {work}/empty.txt --output {work}/out --documents 3", 1, "there is no text in it"),
    (FORMAT + "--input {work}/good.txt --encoding klingon", 2, "found 'klingon', wanted auto or an encoding"),
    (FORMAT + "--input {work}/good.txt --encoding hex", 2, "found 'hex', wanted auto or an encoding"),
    ("format", 2, "--input is missing"),
    ("format", 2, "--output is missing"),
    ("vocab", 2, "--input is missing"),
    ("encode", 2, "--vocab_file is missing"),
    ("verify", 2, "--input is missing"),
    ("stats", 2, "--input is missing"),
    ("stats --input {work}/nowhere", 1, "no such file or folder"),
    ("stats --input {work}/latin.txt", 1, "byte 7 is 0xe9"),
    ("stats --input {work}/empty.txt", 1, "there is no text in it"),
    ("encode --inptu x", 2, "unknown flag --inptu: did you mean --input?"),
    ("encode --input_dir x", 2, "--input_dir is not a flag here: use --input"),
    ("encode --max_seq_length 128", 2, "use --max_seq_len"),
    ("encode --masked_lm_prob 0.15", 2, "use --masked_token_fraction"),
    ("format --nproc 4", 2, "use --processes"),
    (ENCODE_GOOD + "--max_seq_len 5", 2, "--max_seq_len"),
    (ENCODE_GOOD + "--max_seq_len 64 64", 2, "wanted each length once"),
    (ENCODE_GOOD + "--max_seq_len", 2, "--max_seq_len: no value follows it"),
    (
        ENCODE_GOOD + "--short_seq_prob 1.5",
        2,
        "--short_seq_prob: found '1.5', wanted a list, each a number ≥ 0 and ≤ 1",
    ),
    (ENCODE_GOOD + "--next_seq_prob 1", 2, "--next_seq_prob"),
    (ENCODE_GOOD + "--masking sometimes", 2, "one of dynamic, static"),
    (ENCODE_GOOD + "--processes -1", 2, "--processes"),
    (ENCODE_GOOD + "--dupe_factor 0", 2, "--dupe_factor"),
    (FORMAT + "--input {work}/nowhere", 1, "nowhere: there is no such file or folder"),
    (FORMAT + "--input {work}/folder", 1, "no input in this folder; wanted files ending in .txt, .jsonl"),
    (FORMAT + "--input {work}/picture.png", 1, "what kind of text is this?"),
    (FORMAT + "--input {work}/empty.txt", 1, "the input holds no sentence"),
    (FORMAT + "--input {work}/blank.txt", 1, "the input holds no sentence"),
    (FORMAT + "--input {work}/nul.txt", 1, "nul.txt: byte 7 is NUL"),
    (FORMAT + "--input {work}/latin.txt", 1, "latin.txt: byte 7 is 0xe9, which is not UTF-8"),
    (FORMAT + "--input {work}/bad.jsonl", 1, "bad.jsonl: line 2 is not JSON"),
    (FORMAT + "--input {work}/list.jsonl", 1, "line 1 is a list, wanted an object"),
    (FORMAT + "--input {work}/field.jsonl", 1, 'has no "text", only body, id. Name its --text_field'),
    (FORMAT + "--input {work}/number.jsonl", 1, 'has a int in "text", wanted a text'),
    (FORMAT + "--no-clean --input {work}/nul.jsonl", 1, "line 1 holds a NUL character"),
    (FORMAT + "--no-clean --input {work}/surrogate.jsonl", 1, "line 1 holds \\ud800, half of a surrogate pair"),
    (FORMAT + "--input {work}/cut.jsonl.gz", 1, "cut.jsonl.gz: not a whole gzip file"),
    (FORMAT + "--input {work}/plain.jsonl.gz", 1, "plain.jsonl.gz: not a gzip file, whatever its name says"),
    ("vocab --output {work}/out --input {work}/empty.txt", 1, "there is no text in it"),
    ("vocab --output {work}/out --input {work}/folder", 1, "no text (*.txt) in this folder"),
    ("vocab --output {work}/out --input {work}/control.txt", 1, "no words to train a vocabulary on"),
    ("vocab --output {work}/out --input {work}/latin.txt", 1, "byte 7 is 0xe9"),
    (ENCODE + "--vocab_file {work}/vocab.txt --input {work}/nowhere", 1, "no such file or folder"),
    (ENCODE + "--vocab_file {work}/vocab.txt --input {work}/empty.txt", 1, "there is no text in it"),
    (ENCODE + "--vocab_file {work}/vocab.txt --input {work}/control.txt", 1, "there is no word in this text"),
    (ENCODE + "--vocab_file {work}/vocab.txt --input {work}/nul.txt", 1, "nul.txt: byte 7 is NUL"),
    (ENCODE + "--vocab_file {work}/vocab.txt --input {work}/latin.txt", 1, "byte 7 is 0xe9"),
    (ENCODE + "--vocab_file {work}/words.txt --input {work}/good.txt", 1, "[MASK] not among them"),
    (ENCODE + "--vocab_file {work}/nowhere --input {work}/good.txt", 1, "there is no such vocabulary"),
    (ENCODE + "--vocab_file {work}/folder --input {work}/good.txt", 1, "neither tokenizer.json nor vocab.txt"),
    (ENCODE + "--vocab_file {work}/picture.png --input {work}/good.txt", 1, "not UTF-8"),
    ("encode --output {work}/good.txt --input {work}/good.txt --vocab_file {work}/vocab.txt", 1, "good.txt/sequences"),
    ("verify --input {work}/nowhere", 1, "no such file or folder"),
    ("verify --input {work}/folder", 1, "no shard (*.hdf5) found"),
]


@pytest.mark.parametrize(("command", "code", "message"), CASES, ids=[f"{case[0][:60]} → {case[2]}" for case in CASES])
def test_a_wrong_call_gets_one_message(command: str, code: int, message: str, work: Path, tool: Tool) -> None:
    said = tool(*command.format(work=work).split())
    assert said.code == code
    assert message in said.err + said.out
    assert said.err.count("error:") == (0 if not command else 1)
    assert "Traceback" not in said.err
    made = [path for path in (work / "out").rglob("*") if path.is_file()] if (work / "out").exists() else []
    assert not [path for path in made if path.suffix == ".hdf5" or path.name.startswith((".partial", "formatted"))]


def test_help_lists_the_stages_and_each_stage_its_options(tool: Tool) -> None:
    said = tool("--help")
    assert said.code == 0
    stages = ("sources", "download", "format", "sample", "vocab", "encode", "pack", "verify", "stats")
    assert all(stage in said.out for stage in stages)
    for stage, flag in (("format", "--text_field"), ("vocab", "--vocab_size"), ("encode", "--dupe_factor")):
        said = tool(stage, "--help")
        assert said.code == 0
        assert flag in said.out.replace("-", "_").replace("__", "--")


def test_documents_of_one_sentence_are_encoded(work: Path, tool: Tool) -> None:
    (work / "short.txt").write_text("the cat .\n\nthe\n\n.\n")
    command = ENCODE + "--input {work}/short.txt --vocab_file {work}/vocab.txt --max_seq_len 16"
    assert tool(*command.format(work=work).split()).code == 0
    (work / "single.txt").write_text("the\n")
    command = command.replace("short.txt", "single.txt").replace("/out", "/out1")
    said = tool(*command.format(work=work).split())
    assert said.code == 0, said.err
    assert tool("verify", "--input", work / "out1").code == 0


def test_a_second_writer_in_one_folder_is_refused(work: Path, tool: Tool) -> None:
    folder = work / "out" / "sequences_lowercase_max_seq_len_128_next_seq_task_true"
    with exclusive_lock(folder, "builds"):
        said = tool(*ENCODE_GOOD.format(work=work).split())
    assert said.code == 1
    assert "is writing here" in said.err
    with exclusive_lock(work / "formatted", "builds"):
        said = tool("format", "--input", work / "good.txt", "--output", work / "formatted")
    assert "is writing here" in said.err


def run_tool(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bert_pytorch.corpus", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount small file systems with the options asked for."""
    disks: list[Path] = []

    def mount(options: str) -> Path:
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here (needs root)")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_folder_is_one_message(work: Path, tool: Tool, mounted: Callable[[str], Path]) -> None:
    out = mounted("ro,size=64k") / "out"
    options = ("--input", work / "good.txt", "--output", out)
    for words in (("format", *options), ("vocab", *options), ("encode", *options, "--vocab_file", work / "vocab.txt")):
        said = tool(*words)
        assert said.code == 1
        assert said.err.count("\n") == 1
        assert "the file system is read-only. Choose a folder you may write to" in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the read-only file system above is its case")
def test_a_folder_without_permission_is_one_message(work: Path, tool: Tool) -> None:
    locked = work / "locked"
    locked.mkdir(mode=0o555)
    said = tool("format", "--input", work / "good.txt", "--output", locked / "out")
    assert said.code == 1
    assert "permission denied. Choose a folder you may write to" in said.err


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_is_one_message_and_nothing_half_written(
    work: Path, mounted: Callable[[str], Path], processes: int
) -> None:
    disk = mounted("size=256k")
    (work / "long.txt").write_text("\n\n".join(["the cat sat .\n" * 800] * 12))
    words = [
        "--input",
        work / "long.txt",
        "--vocab_file",
        work / "vocab.txt",
        "--block_bytes",
        12000,
        "--shard_sequences",
        99,
    ]
    said = run_tool("encode", *words, "--output", disk, "--processes", processes)
    assert said.returncode == 1
    assert said.stderr.count("error:") == 1
    assert "the disk is full" in said.stderr
    assert "train_" in said.stderr
    assert "Traceback" not in said.stderr
    assert not list(disk.rglob(".partial*"))
    said = run_tool("format", "--input", work / "long.txt", "--output", disk / "f", "--processes", 1)
    assert said.returncode == 1
    assert "the disk is full" in said.stderr


def test_a_worker_that_dies_is_named_with_its_work(work: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("no such number")

    monkeypatch.setattr("bert_pytorch.corpus.token_blocks.plan_set", fail)
    said = tool(*ENCODE_GOOD.format(work=work).split())
    assert said.code == 1
    assert f"tokens of {work}/good.txt: ZeroDivisionError: no such number" in said.err
