"""Reading a checkpoint file: every damage is found, nothing in it is ever executed."""

import os
import random
import zipfile

import pytest
import torch

from bert_pytorch.checkpoints.format import FORMAT_VERSION
from bert_pytorch.checkpoints.reading import DamagedCheckpointError, load_checkpoint, load_weights
from bert_pytorch.errors import InputError


def write(path, **entries):
    torch.save({"format_version": FORMAT_VERSION, "weight": torch.arange(5000.0), **entries}, path)
    return path


class Hostile:
    """What an attacker pickles: loading it runs a command."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def test_good_file_is_read(tmp_path):
    assert load_checkpoint(write(tmp_path / "ckpt_1.pt"))["weight"][4999] == 4999


def test_weights_are_read_from_the_same_file(tmp_path):
    path = write(tmp_path / "c.pt", model={"a": torch.ones(2)}, model_config={}, vocabulary=["x"], lowercase=False)
    assert load_weights(path).vocabulary == ["x"]


def test_hostile_pickle_is_refused_and_nothing_runs(tmp_path):
    proof = tmp_path / "executed"
    path = write(tmp_path / "ckpt_1.pt", optimizer=Hostile(proof))
    with pytest.raises(
        InputError, match=r"it holds code or objects \((posix|os)\.system\), wanted only tensors"
    ) as caught:
        load_checkpoint(path)
    assert not isinstance(caught.value, DamagedCheckpointError)  # an older file must not silently take its place
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # so the bait was real


def test_every_flipped_bit_of_the_tensors_is_found(tmp_path):
    path = write(tmp_path / "ckpt_1.pt")
    good = path.read_bytes()
    start = good.index(torch.arange(5000.0).numpy().tobytes())
    rng = random.Random(0)
    for _ in range(50):
        damaged = bytearray(good)
        damaged[start + rng.randrange(20_000)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        torch.load(path, weights_only=True)  # torch itself does not notice
        with pytest.raises(DamagedCheckpointError, match="damaged"):
            load_checkpoint(path)


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    path = write(tmp_path / "ckpt_1.pt")
    good = path.read_bytes()
    rng = random.Random(1)
    for _ in range(200):
        damaged = bytearray(good)
        outside_data = rng.choice([rng.randrange(2000), len(good) - 1 - rng.randrange(1500)])
        damaged[outside_data] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except DamagedCheckpointError:
            continue
        assert torch.equal(loaded["weight"], torch.arange(5000.0))  # the bit was padding or a date


def test_truncation_at_any_length_is_found(tmp_path):
    path = write(tmp_path / "ckpt_1.pt")
    good = path.read_bytes()
    for length in [1, 3, 4, 100, len(good) // 2, len(good) - 22, len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(DamagedCheckpointError, match=r"cut off or damaged|no zip archive"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"weights, honestly", "it is not a checkpoint"),
        (b"PK\x03\x04 but no more", "cut off or damaged"),
    ],
)
def test_file_that_is_no_archive_is_refused(tmp_path, content, message):
    path = tmp_path / "ckpt_1.pt"
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=message):
        load_checkpoint(path)


def test_other_zip_archive_is_refused(tmp_path):
    path = tmp_path / "ckpt_1.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "ckpt_1.pt")
    with pytest.raises(InputError, match="it is a folder; name the checkpoint file inside it"):
        load_checkpoint(tmp_path)


def test_other_format_version_is_refused(tmp_path):
    with pytest.raises(InputError, match="format_version is 99") as caught:
        load_checkpoint(write(tmp_path / "ckpt_1.pt", format_version=99))
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_message_is_one_line_with_a_next_step(tmp_path):
    path = write(tmp_path / "ckpt_1.pt")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DamagedCheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("Use another checkpoint, or write it anew.")
