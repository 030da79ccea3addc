"""The folder of checkpoints: kills, full disks, restarts and damage leave good files and say what happened."""

import errno
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

from bert_pytorch.checkpoints.config import CheckpointConfig
from bert_pytorch.checkpoints.format import FORMAT_VERSION, Checkpoint, DataPosition
from bert_pytorch.checkpoints.reading import load_checkpoint
from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.errors import InputError, explain_os_error


def state(step, size=1000, **entries):
    weight = torch.from_numpy(np.full(size, step, dtype=np.float32))  # NumPy: OpenMP threads do not survive a fork
    return {"format_version": FORMAT_VERSION, "weight": weight, "step": step, **entries}


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    position = content.index(torch.full((100,), float(path.stem.removeprefix("ckpt_"))).numpy().tobytes()) + 50
    content[position] ^= 1
    path.write_bytes(content)


def in_a_process(function, *arguments):
    """Start a fork, which needs no second to import torch."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def save_forever(directory, first):
    store = CheckpointStore(directory, keep_last=2)
    for step in range(first, first + 1_000_000):
        store.save(step, state(step, size=200_000))


def test_saved_state_is_the_newest(tmp_path):
    store = CheckpointStore(tmp_path / "pretrain_ckpts", keep_last=3)
    assert store.load_newest() is None
    path = store.save(5, state(5))
    assert path == tmp_path / "pretrain_ckpts" / "ckpt_5.pt"
    loaded = store.load_newest()
    assert (loaded.step, loaded.path, loaded.rejected) == (5, path, [])
    assert torch.equal(loaded.state["weight"], torch.full((1000,), 5.0))


def test_newest_is_handed_out_checked(tmp_path):
    position = DataPosition(seed=42, epoch=0, samples=96)
    saved = Checkpoint(
        {"w": torch.ones(2)}, {}, ["[PAD]"], True, 7, 2, 5, False, position, {"state": {}, "param_groups": []}
    )
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(7, saved.to_dict())
    found = store.load_newest().checkpoint
    assert (found.step, found.phase, found.phase_start, found.data_position) == (7, 2, 5, position)
    entries = saved.to_dict()
    del entries["phase_start"], entries["optimizer"]
    store.save(8, entries)
    with pytest.raises(InputError, match=r'ckpt_8\.pt: "phase_start" is missing; "optimizer" is missing\.'):
        _ = store.load_newest().checkpoint


def test_steps_are_ordered_as_numbers(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=9)
    for step in (9, 100, 20):
        store.save(step, state(step))
    assert store.steps() == [9, 20, 100]
    assert store.load_newest().step == 100


def test_rotation_counts_across_restarts(tmp_path):
    for step in range(1, 8):
        CheckpointStore(tmp_path, keep_last=3).save(step, state(step))
    assert CheckpointStore(tmp_path, keep_last=3).steps() == [5, 6, 7]
    CheckpointStore(tmp_path, keep_last=1).save(8, state(8))
    assert CheckpointStore(tmp_path, keep_last=1).steps() == [8]


def test_phase_ends_are_kept_besides(tmp_path):
    for step in range(1, 9):
        CheckpointStore(tmp_path, keep_last=2).save(step, state(step, phase_end=step in (3, 8)))
    assert CheckpointStore(tmp_path, keep_last=2).steps() == [3, 7, 8]


def test_foreign_files_are_neither_read_nor_removed(tmp_path):
    foreign = ["best.pt", "ckpt_best.pt", "ckpt_12.pt.bak", "my_ckpt_99.pt", "ckpt_007.pt", "ckpt_-1.pt", "ckpt_5.PT"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, state(1))
    store.save(2, state(2))
    assert store.load_newest().step == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*foreign, "ckpt_2.pt"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "cut off"),
        (flip_a_bit, "wrong checksum|Bad CRC"),
    ],
    ids=["empty", "truncated", "bit flipped"],
)
def test_damaged_newest_is_reported_and_the_one_before_used(tmp_path, caplog, damage, said):
    store = CheckpointStore(tmp_path, keep_last=3)
    for step in (10, 20, 30):
        store.save(step, state(step))
    damage(tmp_path / "ckpt_30.pt")
    with caplog.at_level(logging.WARNING):
        loaded = store.load_newest()
    assert (loaded.step, loaded.state["weight"][0]) == (20, 20.0)
    (reason,) = loaded.rejected
    assert str(tmp_path / "ckpt_30.pt") in reason
    with pytest.raises(InputError, match=said):
        load_checkpoint(tmp_path / "ckpt_30.pt")
    assert reason in caplog.text
    assert "continuing from this older checkpoint" in caplog.text
    assert store.steps() == [10, 20, 30]  # reading changes nothing: others read here too
    content = (tmp_path / "ckpt_30.pt").read_bytes()
    store.set_aside_damaged(loaded)
    assert store.steps() == [10, 20]
    assert (tmp_path / "ckpt_30.pt.damaged").read_bytes() == content
    assert CheckpointStore(tmp_path, keep_last=3).load_newest().rejected == []


def test_all_damaged_names_them_and_what_to_do(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=3)
    for step in (10, 20):
        store.save(step, state(step))
        flip_a_bit(tmp_path / f"ckpt_{step}.pt")
    with pytest.raises(InputError, match=r"none of its 2 .*\n.*ckpt_20\.pt: .*\n.*ckpt_10\.pt: .*\n.*--overwrite"):
        store.load_newest()


def test_newest_of_a_later_version_is_not_passed_over(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=3)
    store.save(10, state(10))
    store.save(20, {**state(20), "format_version": 2})
    with pytest.raises(InputError, match="format_version is 2"):
        store.load_newest()


def test_damaged_leftover_does_not_take_a_good_ones_place(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(30, state(30))
    flip_a_bit(tmp_path / "ckpt_30.pt")
    store.save(20, state(20))  # continuing from before it
    assert store.load_newest().step == 20
    assert store.steps() == [20, 30]


def test_damaged_files_are_set_aside_and_never_removed(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(10, state(10))
    for _ in range(3):
        (tmp_path / "ckpt_30.pt").write_bytes(b"")
        store.set_aside_damaged(store.load_newest())
    flip_a_bit(tmp_path / "ckpt_10.pt")
    os.truncate(tmp_path / "ckpt_10.pt", 1000)
    store.save(20, state(20))  # rotation cannot know whether it ended a phase
    aside = ["ckpt_10.pt.damaged", "ckpt_30.pt.2.damaged", "ckpt_30.pt.3.damaged", "ckpt_30.pt.damaged"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*aside, "ckpt_20.pt"])


@pytest.mark.parametrize("place", ["zipfile.ZipFile.testzip", "torch.load"])
@pytest.mark.parametrize(
    ("failure", "raised"), [(OSError(errno.EIO, "Input/output error"), OSError), (MemoryError(), MemoryError)]
)
def test_failure_that_is_not_in_the_file_is_no_damage(tmp_path, monkeypatch, place, failure, raised):
    store = CheckpointStore(tmp_path, keep_last=1)
    for step in (10, 20):
        store.save(step, state(step, phase_end=True))

    def fails(*_, **__):
        try:
            raise failure
        finally:
            if isinstance(failure, OSError):
                raise RuntimeError("PytorchStreamReader failed")  # as torch wraps it

    with monkeypatch.context() as patched:
        patched.setattr(place, fails)
        with pytest.raises(raised) as caught:
            store.load_newest()
        assert raised is MemoryError or caught.value.filename == str(tmp_path / "ckpt_20.pt")
        store.save(30, state(30))  # looks into older ones whether they are ends of phases
    assert store.steps() == [10, 20, 30]


def test_killed_writer_leaves_the_old_or_the_new_file(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed of the kills: {seed}")
    rng = random.Random(seed)
    store = CheckpointStore(tmp_path, keep_last=2)
    store.save(1, state(1, size=200_000))
    newest, interrupted = 1, 0
    for _ in range(15):
        process = in_a_process(save_forever, tmp_path, newest + 1)
        time.sleep(rng.uniform(0.01, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        interrupted += any(path.name.startswith(".partial-") for path in tmp_path.iterdir())
        loaded = store.load_newest()
        assert loaded.rejected == []
        assert loaded.step >= newest
        assert torch.equal(loaded.state["weight"], torch.full((200_000,), float(loaded.step)))
        newest = loaded.step
    assert newest > 1
    assert interrupted > 0  # so some kills did fall into a write


def save_where_the_disk_is_full(directory, bytes_left, entries):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))  # writes past it fail with EFBIG
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        CheckpointStore(directory, keep_last=1).save(2, state(2, **entries))
    except OSError as error:
        os._exit(0 if error.errno == errno.EFBIG and str(error.filename).endswith("ckpt_2.pt") else 3)
    os._exit(4)


@pytest.mark.parametrize("bytes_left", [0, 300, 5000, 400_000])
def test_write_that_fails_leaves_what_was_there_and_no_part(tmp_path, bytes_left):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(1, state(1))
    process = in_a_process(save_where_the_disk_is_full, tmp_path, bytes_left, {"size": 200_000})
    process.join(timeout=60)
    assert process.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt_1.pt"]
    assert store.load_newest().step == 1


def test_full_disk_is_said_with_the_file_it_filled_up_on(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        store = CheckpointStore(tmp_path, keep_last=1)
        store.save(1, state(1))
        with pytest.raises(OSError, match="No space left") as caught:
            store.save(2, state(2, size=1_000_000))
        assert caught.value.errno == errno.ENOSPC
        assert explain_os_error(caught.value).startswith(f"{tmp_path / 'ckpt_2.pt'}: the disk is full")
        assert [path.name for path in tmp_path.iterdir()] == ["ckpt_1.pt"]
        assert store.load_newest().step == 1
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_error_that_is_not_the_systems_passes_unchanged(tmp_path):
    with pytest.raises((AttributeError, TypeError), match=r"lambda|pickle"):
        CheckpointStore(tmp_path, keep_last=1).save(1, {"function": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        CheckpointStore(tmp_path, keep_last=0)
    assert CheckpointConfig().keep_checkpoints >= 1
