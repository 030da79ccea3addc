"""`encode` and `verify` end to end: no token lost, the same bytes whatever happens on the way."""

import collections
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.corpus import plan, sources
from bert_pytorch.corpus.__main__ import main
from bert_pytorch.records import SPECIAL_TOKENS
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.tokenization.tokenizer import load_tokenizer
from tests.support.data import REPOSITORY, shared_data
from tests.unit.corpus.conftest import AWKWARD_DOCUMENTS, Tool, contents


def the_set(folder: Path) -> Path:
    (found,) = folder.glob("sequences_*")
    return found


def segments(folder: Path, part: str) -> list[tuple[list[int], bool]]:
    """Read every segment of a part, uncorrupted, with whether it is a random B."""
    shards = open_shards(folder, part)  # type: ignore[arg-type]
    rows = shards.rows(np.arange(shards.num_sequences))
    ids = rows.input_ids
    if rows.static_masks is not None:
        row, slot = np.nonzero(np.arange(rows.static_masks.positions.shape[1]) < rows.static_masks.counts[:, None])
        ids[row, rows.static_masks.positions[row, slot]] = rows.static_masks.token_ids[row, slot]
    found = []
    for index in range(len(ids)):
        start, end = int(rows.segment_b_starts[index]), int(rows.lengths[index])
        found.append((ids[index, 1 : start - 1].tolist(), False))
        if rows.next_sentence_labels is not None:
            found.append((ids[index, start : end - 1].tolist(), bool(rows.next_sentence_labels[index])))
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["--next_seq_prob", "0.5"],
        ["--next_seq_prob", "0", "--short_seq_prob", "0.3"],
        ["--next_seq_prob", "0.5", "--dupe_factor", "3", "--masking", "static", "--max_predictions_per_seq", "5"],
    ],
)
def test_each_token_of_awkward_documents_appears_exactly_dupe_factor_times(
    tool: Tool, raw_text: Path, vocabulary: Path, tmp_path: Path, options: list[str]
) -> None:
    formatted, encoded = tmp_path / "formatted", tmp_path / "encoded"
    assert tool("format", "--input", raw_text, "--output", formatted, "--processes", 1).code == 0
    said = tool(
        "encode", "--input", formatted, "--output", encoded, "--vocab_file", vocabulary, "--max_seq_len", 40,
        "--processes", 1, "--block_bytes", 20000, "--eval_fraction", 0.2, *options,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert tool("verify", "--input", encoded).code == 0

    tokenizer = load_tokenizer(vocabulary)
    wanted: collections.Counter[int] = collections.Counter()
    for text in [path.read_text(encoding="utf-8") for path in raw_text.glob("*.txt")]:
        wanted.update(tokenizer.encode_flat([text]).ids.tolist())
    found: collections.Counter[int] = collections.Counter()
    for part in ("train", "eval"):
        for tokens, is_random in segments(the_set(encoded), part):
            assert tokens
            if not is_random:
                found.update(tokens)
    dupes = 3 if "static" in options else 1
    assert found == collections.Counter({token: dupes * count for token, count in wanted.items()})


def test_tokens_keep_their_order(tool: Tool, tmp_path: Path) -> None:
    documents = [[7, 300, 1, 25], [1], [90, 90], [3] * 60]
    words = iter(f"w{index}" for index in range(10_000))
    text = "\n\n".join(
        "\n".join(" ".join(next(words) for _ in range(length)) for length in document) for document in documents
    )
    total = sum(map(sum, documents))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{index}" for index in range(total))]) + "\n")
    for options in (["--next_seq_prob", 0.5], ["--next_seq_prob", 0]):
        encoded = tmp_path / f"encoded{options[1]}"
        said = tool(
            "encode", "--input", tmp_path / "text.txt", "--output", encoded, "--vocab_file", tmp_path / "vocab.txt",
            "--max_seq_len", 32, "--processes", 1, "--eval_fraction", 0, *options,
        )  # fmt: skip
        assert said.code == 0, said.err
        pieces = sorted(tokens for tokens, is_random in segments(the_set(encoded), "train") if not is_random)
        assert [token for piece in pieces for token in piece] == list(range(5, 5 + total))


def encode_command(text: Path, output: Path, vocabulary: Path, *more: object) -> list[str]:
    options = [
        "--max_seq_len",
        64,
        "--block_bytes",
        9000,
        "--shard_sequences",
        40,
        "--masking",
        "static",
        "--dupe_factor",
        2,
        "--seed",
        7,
    ]
    words = ["encode", "--input", text, "--output", output, "--vocab_file", vocabulary, *options, *more]
    return [str(word) for word in words]


def test_one_and_four_processes_write_the_same_bytes(
    tool: Tool,
    raw_text: Path,
    formatted_text: Path,
    vocabulary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "SMALLEST_BLOCK", 20000)  # many units of work from little text
    monkeypatch.setattr(sources, "SMALLEST_UNIT", 5000)
    lines = [json.dumps({"text": path.read_text(encoding="utf-8")}) + "\n" for path in sorted(raw_text.glob("1*"))]
    (raw_text / "more.jsonl").write_text("".join(lines))
    with gzip.open(raw_text / "more.jsonl.gz", "wt") as file:
        file.write("".join(lines[:2]))
    for count in (1, 4):
        out, options = tmp_path / f"with_{count}", ("--processes", count)
        formatting = ("format", "--input", raw_text, "--output", out / "formatted", "--splitter_sample_bytes", 30000)
        for command in (formatting, encode_command(formatted_text, out / "encoded", vocabulary)):
            said = tool(*command, *options)
            assert said.code == 0, said.err
    one, four = contents(tmp_path / "with_1"), contents(tmp_path / "with_4")
    assert sum(name.endswith(".hdf5") for name in one) >= 10
    assert sum(name.endswith(".txt") for name in one) >= 5
    assert one == four


def test_a_fixed_number_of_masked_tokens_is_written(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    more = ("--masked_tokens_per_seq", 13, "--masked_token_fraction", 0.5, "--max_predictions_per_seq", 40)
    assert tool(*encode_command(formatted_text, tmp_path, vocabulary, *more)).code == 0
    shards = open_shards(the_set(tmp_path), "train")
    masks = shards.rows(np.arange(shards.num_sequences)).static_masks
    assert masks is not None
    assert masks.positions.shape[1] == 20  # slots in tens
    assert np.bincount(masks.counts).argmax() == 13
    assert masks.counts.max() == 13


def test_another_seed_writes_other_bytes(tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        command = encode_command(formatted_text, tmp_path / str(seed), vocabulary, "--processes", 1)
        command[command.index("--seed") + 1] = str(seed)
        assert tool(*command).code == 0
    name = f"{the_set(tmp_path / '1').name}/train_0.hdf5"
    assert (tmp_path / "1" / name).read_bytes() != (tmp_path / "2" / name).read_bytes()


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert tool(*encode_command(formatted_text, whole, vocabulary, "--processes", 1)).code == 0
    command = [sys.executable, "-m", "bert_pytorch.corpus"]
    command += encode_command(formatted_text, killed, vocabulary, "--processes", 2)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(killed.rglob("train_*.hdf5"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = the_set(killed)
    made = {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.hdf5")}
    assert 2 <= len(made) < len(list(the_set(whole).glob("*.hdf5"))), "killed too late to show anything"
    assert not (folder / "manifest.json").exists()

    said = tool("verify", "--input", killed)
    assert said.code == 1
    assert "not finished" in said.err
    assert tool(*encode_command(formatted_text, killed, vocabulary, "--processes", 1)).code == 0
    assert contents(killed) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in made} == made  # finished shards were kept, not made again


def test_workers_end_with_their_killed_parent(formatted_text: Path, vocabulary: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bert_pytorch.corpus"]
    command += encode_command(formatted_text, tmp_path / "out", vocabulary, "--processes", 2)
    command[command.index("--dupe_factor") + 1] = "200"
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(children := _session(process.pid)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(children) >= 3
    process.kill()
    process.wait()
    while _session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _session(process.pid)


def _session(leader: int) -> list[int]:
    """List the live processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, session = (entry / "stat").read_text().rpartition(")")[2].split()[0::3][:2]
            except OSError:
                continue
            if int(session) == leader and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_ends_with_75_and_nothing_half_written(
    number: signal.Signals, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    command = encode_command(formatted_text, tmp_path / "out", vocabulary, "--processes", 2)
    command[command.index("--dupe_factor") + 1] = "30"
    process = subprocess.Popen(
        [sys.executable, "-m", "bert_pytorch.corpus", *command],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("train_*.hdf5")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped. What is finished is kept" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob(".partial*"))
    assert not list(tmp_path.rglob("manifest.json"))


def test_deleted_shards_are_made_again(tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path) -> None:
    command = encode_command(formatted_text, tmp_path, vocabulary, "--processes", 1)
    assert tool(*command).code == 0
    before = contents(the_set(tmp_path))
    for name in ("train_1.hdf5", "eval_0.hdf5"):
        (the_set(tmp_path) / name).unlink()
    said = tool("verify", "--input", the_set(tmp_path))
    assert said.code == 1
    assert "train_1.hdf5: named by the manifest, but missing" in said.err
    assert tool(*command).code == 0
    assert contents(the_set(tmp_path)) == before


def test_other_settings_are_refused_and_overwriting_starts_anew(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert tool(*encode_command(formatted_text, out, vocabulary, "--processes", 1)).code == 0
    before = contents(the_set(out))
    said = tool(*encode_command(formatted_text, out, vocabulary, "--short_seq_prob", 0.5))
    assert said.code == 1
    assert "short_seq_prob 0.1 → 0.5" in said.err
    assert "--overwrite" in said.err
    assert contents(the_set(out)) == before
    command = encode_command(formatted_text, out, vocabulary, "--short_seq_prob", 0.5, "--overwrite", "--processes", 1)
    command[command.index("--shard_sequences") + 1] = "1000"
    assert tool(*command).code == 0
    assert tool("verify", "--input", out).code == 0
    assert len(list(the_set(out).glob("*.hdf5"))) < sum(name.endswith(".hdf5") for name in before)

    next(formatted_text.glob("*.txt")).write_text("Some other text.\n")
    said = tool(*[word for word in command if word != "--overwrite"])
    assert said.code == 1
    assert "other input" in said.err


def test_the_manifest_counts_what_the_shards_hold(
    tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    assert (
        tool(*encode_command(formatted_text, tmp_path, vocabulary, "--eval_fraction", 0.25, "--processes", 1)).code == 0
    )
    folder = the_set(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["train"]["documents"] + manifest["eval"]["documents"] == 12
    assert manifest["eval"]["documents"] == 3
    for part in ("train", "eval"):
        shards = open_shards(folder, part)  # type: ignore[arg-type]
        assert manifest[part]["sequences"] == shards.num_sequences
        assert manifest[part]["tokens"] == shards.rows(np.arange(shards.num_sequences)).lengths.sum()
    assert manifest["vocabulary_sha256"] == load_tokenizer(vocabulary).sha256
    assert (manifest["seed"], manifest["lowercase"], manifest["sequence_length"]) == (7, True, 64)
    assert manifest["settings"]["eval_fraction"] == 0.25
    assert str(tmp_path) not in (folder / "manifest.json").read_text()
    with h5py.File(folder / "train_0.hdf5") as file:
        assert file.attrs["vocabulary_sha256"] == manifest["vocabulary_sha256"]
        assert json.loads(file.attrs["settings"]) == manifest["settings"]
    assert json.loads((folder / "build_log.json").read_text())["host"]


def test_held_out_documents_are_not_trained_on(tool: Tool, tmp_path: Path) -> None:
    words = [f"w{index}" for index in range(400)]
    documents = ["\n".join(" ".join(words[d * 10 : d * 10 + 5]) for _ in range(3)) for d in range(40)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words]) + "\n")
    said = tool(
        "encode", "--input", tmp_path / "text.txt", "--output", tmp_path / "out",
        "--vocab_file", tmp_path / "vocab.txt",
        "--eval_fraction", 0.1, "--processes", 1,
    )  # fmt: skip
    assert said.code == 0, said.err
    of_part = [
        {(token - 5) // 10 for tokens, _ in segments(the_set(tmp_path / "out"), part) for token in tokens}
        for part in ("train", "eval")
    ]
    assert [len(documents) for documents in of_part] == [36, 4]
    assert not of_part[0] & of_part[1]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "sequences_lowercase_max_seq_len_128_next_seq_task_true"),
        (["--next_seq_prob", 0], "sequences_lowercase_max_seq_len_128_next_seq_task_false"),
        (["--no-lowercase", "--max_seq_len", 32], "sequences_uppercase_max_seq_len_32_next_seq_task_true"),
    ],
)
def test_folders_have_their_contracted_names(
    options: list[object], name: str, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    command = ["encode", "--input", formatted_text, "--output", tmp_path / "o", "--vocab_file", vocabulary, *options]
    said = tool(*command, "--processes", 1)
    assert said.code == 0, said.err
    names = {path.name for path in (tmp_path / "o" / name).iterdir() if not path.name.startswith(".")}
    assert {"train_0.hdf5", "eval_0.hdf5", "manifest.json", "vocab.txt", "tokenizer.json", "build_log.json"} <= names
    assert "unfinished.json" not in names


def test_several_lengths_make_several_sets(tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    command = ["encode", "--input", formatted_text, "--output", out, "--vocab_file", vocabulary, "--max_seq_len"]
    assert tool(*command, 32, 64, "--processes", 1).code == 0
    assert sorted(open_shards(folder).sequence_length for folder in out.iterdir()) == [32, 64]


@pytest.mark.parametrize("masking", ["dynamic", "static"])
def test_gzip_holds_the_same_rows(
    masking: str, tool: Tool, formatted_text: Path, vocabulary: Path, tmp_path: Path
) -> None:
    rows = []
    for compression in ("none", "gzip"):
        out = tmp_path / compression
        options = ["--masking", masking, "--compression", compression, "--processes", 1]
        assert (
            tool("encode", "--input", formatted_text, "--output", out, "--vocab_file", vocabulary, *options).code == 0
        )
        assert tool("verify", "--input", out).code == 0
        shards = open_shards(the_set(out))
        rows.append(shards.rows(np.arange(shards.num_sequences)))
    assert np.array_equal(rows[0].input_ids, rows[1].input_ids)


@pytest.fixture(scope="module")
def sound_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static set of two shards."""
    folder = tmp_path_factory.mktemp("sound")
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    assert main(encode_command(folder, folder / "o", shared_data("vocab", "bert-base-uncased-vocab.txt"))) == 0
    return the_set(folder / "o")


def damage(case: str, folder: Path) -> None:
    shard = folder / "train_0.hdf5"
    with h5py.File(shard, "r+") as file:
        match case:
            case "changed token":
                file["input_ids"][0, 1] = file["input_ids"][0, 1] ^ 1
            case "no [CLS]":
                file["input_ids"][2, 0] = 2000
            case "id too large":
                file["input_ids"][3, 2] = 30522
            case "padding":
                row = int(np.argmin(file["input_mask"][:].sum(1)))
                file["input_ids"][row, -1] = 2000
            case "masked [CLS]":
                file["masked_lm_positions"][1, 0], file["masked_lm_positions"][1, 1] = 63, 64
            case "masked twice":
                file["masked_lm_positions"][1, 1] = file["masked_lm_positions"][1, 0]
            case "special label":
                file["masked_lm_ids"][1, 0] = 102
            case "label 7":
                file["next_sentence_labels"][5] = 7
            case "empty B":
                file["segment_ids"][4] = 0
    if case == "one byte":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    if case == "uneven":
        manifest = json.loads((folder / "manifest.json").read_text())
        with h5py.File(shard, "r+") as file:
            for name in list(file):
                rows = file[name][:-2]
                del file[name]
                file[name] = rows
        manifest["shards"][0]["rows"] -= 2
        (folder / "manifest.json").write_text(json.dumps(manifest))
    if case == "no vocab.txt":
        (folder / "vocab.txt").unlink()
    if case == "left over":  # named as what it is, not as a damaged shard
        (folder / ".partial-x-train_1.hdf5").write_bytes(b"")
    if case == "unfinished":
        (folder / "unfinished.json").write_text("{}")
    if case == "manifest counts":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"longest": 64', '"longest": 63', 1))
    if case == "truncated":
        shard.write_bytes(shard.read_bytes()[:-4000])
    if case == "strange file":
        (folder / "train_77.hdf5").write_bytes(shard.read_bytes())
    if case == "vocabulary":
        lines = (folder / "vocab.txt").read_text().split("\n")
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join([*lines[:-1], "[another]", ""]))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("changed token", "SHA-256 differs"),
        ("one byte", "train_0.hdf5: its bytes are not those of the manifest"),
        ("uneven", "its train shards have \\d+ to \\d+ rows, wanted equal within one"),
        ("no vocab.txt", "vocab.txt: missing"),
        ("left over", ".partial-x-train_1.hdf5: left over from a writer that was killed"),
        ("unfinished", "its build is not finished: it has unfinished.json and \\d+ shard"),
        ("manifest counts", "hdf5: longest: 64, the manifest says 63"),
        ("no [CLS]", "row 2: it does not start with \\[CLS\\]"),
        ("id too large", "row 3: an id outside the vocabulary"),
        ("padding", "something stands in the padding"),
        ("masked [CLS]", "row 1: a special token or padding is masked"),
        ("masked twice", "row 1: masked positions do not increase"),
        ("special label", "row 1: masked_lm_ids holds a special token"),
        ("label 7", "row 5: the next-sentence label is neither 0 nor 1"),
        ("empty B", "row 4: segment B is empty"),
        ("truncated", "not a readable HDF5 file"),
        ("strange file", "train_77.hdf5: not in the manifest"),
        ("vocabulary", "made with another vocabulary"),
    ],
)
def test_verify_names_what_is_wrong(case: str, message: str, tool: Tool, sound_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(sound_set, folder)
    assert tool("verify", "--input", folder).code == 0
    damage(case, folder)
    said = tool("verify", "--input", folder)
    assert said.code == 1
    assert "Traceback" not in said.err
    assert re.search(message, said.err), said.err
    assert case != "left over" or said.err.count("\n  - ") == 1


def test_verify_names_every_problem_and_the_same_in_any_number_of_processes(
    tool: Tool, sound_set: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(sound_set, folder)
    for case in ("one byte", "no [CLS]", "label 7", "empty B", "no vocab.txt", "strange file"):
        damage(case, folder)
    (folder / "eval_0.hdf5").unlink()
    one = tool("verify", "--input", folder, "--processes", 1)
    three = tool("verify", "--input", folder, "--processes", 3)
    assert (one.code, one.out, one.err) == (three.code, three.out, three.err)
    for wanted in (
        "SHA-256 differs", "row 2: it does not start", "row 5: the next-sentence label", "row 4: segment B is empty",
        "vocab.txt: missing", "train_77.hdf5: not in the manifest", "eval_0.hdf5: named by the manifest, but missing",
    ):  # fmt: skip
        assert wanted in one.err, one.err
    assert len(tool("verify", "--input", folder, "--max_problems", 2).err.split("\n  - ")) == 4


def test_awkward_documents_are_what_they_claim() -> None:
    assert len(AWKWARD_DOCUMENTS["giant_sentence"].split()) > 3000
    assert not any(letter.isalnum() for letter in AWKWARD_DOCUMENTS["punctuation"])
