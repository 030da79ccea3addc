"""What a person gets wrong: one clear message, the contracted exit code, no traceback, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest

from tests.support.runs import pretrain_here, pretraining_command, run_program


class Case(NamedTuple):
    """One mistake."""

    name: str
    change: Callable[[dict[str, Any], Path], dict[str, Any]]
    """Turns good flags into the mistaken ones."""
    code: int
    said: tuple[str, ...]
    """What the message must contain."""


def _file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _broken_shards(good: Path, folder: Path, damage: Callable[[Path], None]) -> Path:
    copy = folder / "shards"
    shutil.copytree(good, copy)
    damage(sorted(copy.glob("train_*.hdf5"))[0])
    return copy


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _drop_column(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["special_token_positions"]


CASES = [
    Case("no input_dir", lambda f, t: {**f, "input_dir": None}, 2, ("--input_dir is missing",)),
    Case("missing input_dir", lambda f, t: {**f, "input_dir": t / "none"}, 1, ("none", "Check the spelling")),
    Case("empty input_dir", lambda f, t: {**f, "input_dir": t}, 1, (".hdf5",)),
    Case(
        "truncated shard",
        lambda f, t: {**f, "input_dir": _broken_shards(f["input_dir"], t, _truncate)},
        1,
        ("train_0.hdf5",),
    ),
    Case(
        "binary garbage as a shard",
        lambda f, t: {**f, "input_dir": _file(t, "train_0.hdf5", b"\x00\xff" * 500)},
        1,
        ("train_0.hdf5",),
    ),
    Case(
        "shard of no known layout",
        lambda f, t: {**f, "input_dir": _broken_shards(f["input_dir"], t, _drop_column)},
        1,
        ("train_0.hdf5",),
    ),
    Case(
        "two lengths under one folder",
        lambda f, t: {**f, "input_dir": f["input_dir"].parent},
        1,
        ("max_seq_len_64", "max_seq_len_128"),
    ),
    Case("wrong type", lambda f, t: {**f, "max_steps": "many"}, 2, ("--max_steps", "'many'", "whole number")),
    Case("negative rate", lambda f, t: {**f, "learning_rate": -1}, 2, ("--learning_rate", "> 0")),
    Case("unknown flag", lambda f, t: {**f, "learning_rte": 1}, 2, ("--learning_rte", "--learning_rate")),
    Case("an ancestor's flag", lambda f, t: {**f, "train_batch_size": 8}, 2, ("--global_batch_size",)),
    Case("another ancestor's flag", lambda f, t: {**f, "max-sentences": 8}, 2, ("--local_batch_size",)),
    Case("habana's flag", lambda f, t: {**f, "use_habana": True}, 2, ("--device",)),
    Case("two precisions", lambda f, t: {**f, "fp16": True, "precision": "bf16"}, 2, ("--fp16", "bf16")),
    Case("missing model", lambda f, t: {**f, "model_config_file": "bert_bse_uncased"}, 2, ("bert_base_uncased",)),
    Case(
        "model of a wrong shape",
        lambda f, t: {**f, "model_config_file": _file(t, "m.json", '{"hidden_size": 30, "num_attention_heads": 4}')},
        2,
        ("hidden_size", "num_attention_heads"),
    ),
    Case(
        "configuration that is not JSON",
        lambda f, t: {**f, "config_file": _file(t, "c.json", '{"seed": 1,\n "max_steps" 3}')},
        2,
        ("c.json", "line 2"),
    ),
    Case(
        "configuration with two mistakes",
        lambda f, t: {**f, "config_file": _file(t, "c.json", '{"sed": 1, "lr_decay": "exponential"}')},
        2,
        ('did you mean "seed"', "poly, linear"),
    ),
    Case("missing configuration", lambda f, t: {**f, "config_file": t / "none.json"}, 2, ("none.json",)),
    Case("phase 2 without phase 1", lambda f, t: {**f, "previous_phase_end_step": 5}, 1, ("ckpt_5.pt",)),
    Case("missing weights", lambda f, t: {**f, "init_checkpoint": t / "none.pt"}, 1, ("none.pt",)),
    Case(
        "weights that are a pickle of somebody's code",
        lambda f, t: {**f, "init_checkpoint": _file(t, "evil.pt", b"cos\nsystem\n(S'touch hacked'\ntR.")},
        1,
        ("evil.pt",),
    ),
    Case(
        "output folder is a file",
        lambda f, t: {**f, "output_dir": _file(t, "out", "text") / "run"},
        1,
        ("out",),
    ),
    Case("log prefix leaves the folder", lambda f, t: {**f, "log_prefix": "../x"}, 2, ("log_prefix",)),
]


@pytest.fixture
def good(shards64: Path, tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "input_dir": shards64,
        "model_config_file": tiny_model,
        "output_dir": tmp_path / "run",
        "global_batch_size": 4,
        "max_steps": 1,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_gets_one_message_and_its_exit_code(case: Case, good: dict[str, Any], tmp_path: Path) -> None:
    outcome = pretrain_here(**case.change(good, tmp_path))
    assert outcome.code == case.code, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    for words in case.said:
        assert words in outcome.err
    assert not list(tmp_path.rglob(".partial-*"))
    assert not (tmp_path / "run" / "model").exists()


def test_the_good_flags_are_good(good: dict[str, Any]) -> None:
    assert pretrain_here(**good).code == 0


def _as_nobody(command: list[str]) -> list[str]:
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to be nobody")
def test_an_output_folder_that_cannot_be_written_is_one_message(good: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    for path in (tmp_path, *tmp_path.parents):  # pytest's folders are closed to others
        if path.stat().st_mode & 0o005 != 0o005 and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    probe = subprocess.run(_as_nobody([sys.executable, "-c", "import torch"]), capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("nobody may not read this Python environment")
    command = pretraining_command(**{**good, "output_dir": folder / "run"})
    outcome = run_program(_as_nobody(command), HOME="/tmp")
    assert outcome.code == 1, outcome.err
    assert "permission denied" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_is_one_message_and_the_last_checkpoint_stays_good(
    good: dict[str, Any], small_disk: Path
) -> None:
    run = small_disk / "run"
    flags = {**good, "output_dir": run, "max_steps": 50, "num_steps_per_checkpoint": 1}
    outcome = pretrain_here(**flags)
    assert outcome.code == 1
    assert "the disk is full" in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(run.rglob(".partial-*"))


def test_dry_run_shows_values_origins_and_derived_numbers_and_writes_nothing(
    good: dict[str, Any], tmp_path: Path
) -> None:
    config = _file(tmp_path, "c.json", json.dumps({"learning_rate": 0.004, "seed": 3}))
    outcome = pretrain_here(
        **{**good, "config_file": config, "seed": 5, "global_batch_size": 100, "local_batch_size": 30}, dry_run=True
    )
    assert outcome.code == 0, outcome.err
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line.strip()}
    assert str(config) in lines["learning_rate"]
    assert lines["seed"].split()[1:] == ["5", "command", "line"]
    assert lines["lr_power"].split()[1:] == ["0.5", "default"]
    assert "4 a rank and update, of at most 25 sequences" in outcome.out
    # 30522*32 + 128*32 + 2*32 + 2*32 embeddings; per layer 4*(32*32+32) + 2*64 + (32*64+64) + (64*32+32); the heads
    # 32*32+32 + 64 + 30522, and the pooler 32*32+32 with the pair scores 32*2+2.
    layer = 4 * (32 * 32 + 32) + 2 * 2 * 32 + (32 * 64 + 64) + (64 * 32 + 32)
    embeddings = (30522 + 128 + 2) * 32 + 2 * 32
    heads = (32 * 32 + 32) + 2 * 32 + 30522 + (32 * 32 + 32) + (32 * 2 + 2)
    assert f"{embeddings + 2 * layer + heads:,}" in outcome.out
    assert not (tmp_path / "run").exists()
