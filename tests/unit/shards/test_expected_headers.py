"""The fast way to a header agrees with `read_header`, and leaves to it whatever is not as expected."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.shards.expected_headers import expected_header
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.mapped import OpenShard
from bert_pytorch.shards.open_shards import OpenShards
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import make_rows

ROWS, LENGTH = 6, 16
SAID = {"vocabulary_sha256": "ab" * 32, "lowercase": False}
FLIPS = 150


def write(path: Path, *, slots: int = 0, pairs: bool = True, compression: str = "none") -> ShardEntry:
    """Write a shard and return what a manifest would say of it."""
    more = {**SAID, "fingerprint": "x", "seed": 3}
    write_shard(path, make_rows(ROWS, LENGTH, pairs=pairs, slots=slots), more, compression)  # type: ignore[arg-type]
    return ShardEntry(path, "nvidia" if slots else "native", ROWS, LENGTH, pairs, SAID)


def told(header: Header) -> Header:
    """Leave out the attributes that a manifest does not tell, and the spelling of one-byte dtypes."""
    columns = {name: (np.dtype(dtype).str, shape) for name, (dtype, shape) in header.columns.items()}
    return header._replace(attributes={name: header.attributes.get(name) for name in SAID}, columns=columns)


@pytest.mark.parametrize("slots", [0, 3])
@pytest.mark.parametrize("pairs", [True, False])
def test_it_is_the_header_that_the_reference_reads(pairs: bool, slots: int, tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5", pairs=pairs, slots=slots)
    found = expected_header(entry)
    assert found is not None
    assert told(found) == told(read_header(entry.path))
    every = np.arange(ROWS)
    for name, column in OpenShard(found).columns(every).items():
        assert column.tobytes() == OpenShard(read_header(entry.path)).columns(every)[name].tobytes()


@pytest.mark.parametrize(
    "otherwise",
    [
        {"num_rows": ROWS - 1},
        {"num_rows": 0},
        {"sequence_length": LENGTH + 1},
        {"next_sentence": False},
        {"layout": "nvidia"},
        {"layout": "packed"},
        {"attributes": {**SAID, "lowercase": True}},
        {"attributes": {**SAID, "vocabulary_sha256": "cd" * 32}},
        {"attributes": {**SAID, "absent": "x"}},
    ],
)
def test_what_the_file_does_not_say_is_left_to_the_reference(otherwise: dict[str, object], tmp_path: Path) -> None:
    assert expected_header(write(tmp_path / "train_0.hdf5")._replace(**otherwise)) is None  # type: ignore[arg-type]


def replace(path: Path, name: str, make: Callable[[h5py.File, np.ndarray], None]) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        make(file, data)


def link_softly(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.move("input_ids", "ids")
        del file["next_sentence_labels"]
        file["input_ids"] = h5py.SoftLink("/ids")


def link_to_another_file(path: Path) -> None:
    with h5py.File(path.with_name("other.hdf5"), "w") as other, h5py.File(path, "r+") as file:
        file.copy("input_ids", other)
        del file["input_ids"]
        file["input_ids"] = h5py.ExternalLink("other.hdf5", "/input_ids")


def store_in_another_file(path: Path) -> None:
    def make(file: h5py.File, data: np.ndarray) -> None:
        file.create_dataset(
            "input_ids", data.shape, data.dtype, external=[(str(path.with_name("raw")), 0, data.nbytes)]
        )
        file["input_ids"][:] = data

    replace(path, "input_ids", make)


def make_virtual(path: Path) -> None:
    def make(file: h5py.File, data: np.ndarray) -> None:
        with h5py.File(path.with_name("other.hdf5"), "w") as other:
            other["input_ids"] = data
        layout = h5py.VirtualLayout(data.shape, data.dtype)
        layout[:] = h5py.VirtualSource(path.with_name("other.hdf5"), "input_ids", data.shape)
        file.create_virtual_dataset("input_ids", layout)

    replace(path, "input_ids", make)


def add_a_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["more"] = h5py.ExternalLink("/etc/passwd", "/")


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def of_three_bytes(path: Path) -> None:
    def make(file: h5py.File, data: np.ndarray) -> None:
        kind = h5py.h5t.STD_I32LE.copy()
        kind.set_precision(24)
        kind.set_size(3)
        h5py.h5d.create(file.id, b"input_ids", kind, h5py.h5s.create_simple(data.shape))

    replace(path, "input_ids", make)


def exchange(path: Path) -> None:
    path.write_text("x" * path.stat().st_size)


@pytest.mark.parametrize(
    "spoil",
    [
        link_softly,
        link_to_another_file,
        store_in_another_file,
        make_virtual,
        add_a_link,
        cut_off,
        cut_in_half,
        empty,
        exchange,
        of_three_bytes,
    ],
)
def test_hostile_and_damaged_files_are_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5")
    spoil(entry.path)
    assert expected_header(entry) is None
    with pytest.raises(InputError, match=r"train_0\.hdf5"):
        OpenShards([entry], tmp_path, {}, None)[0]


def widen(path: Path) -> None:
    replace(path, "input_ids", lambda file, data: file.create_dataset("input_ids", data=data.astype("i8")))


def reverse_bytes(path: Path) -> None:
    replace(path, "input_ids", lambda file, data: file.create_dataset("input_ids", data=data.astype(">i4")))


def compress(path: Path) -> None:
    replace(path, "input_ids", lambda file, data: file.create_dataset("input_ids", data=data, compression="gzip"))


def add_a_dataset(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["notes"] = np.arange(3)


def say_in_fixed_text(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["vocabulary_sha256"] = np.bytes_("ab" * 32)


def say_in_numbers(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["lowercase"] = np.int64(0)


@pytest.mark.parametrize("change", [widen, reverse_bytes, compress, add_a_dataset, say_in_fixed_text, say_in_numbers])
def test_what_we_do_not_write_is_left_to_the_reference(change: Callable[[Path], None], tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5")
    change(entry.path)
    assert expected_header(entry) is None


def test_a_file_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5")
    entry.path.unlink()
    with pytest.raises(FileNotFoundError):
        expected_header(entry)


@pytest.mark.parametrize("slots", [0, 3])
def test_a_flipped_bit_of_the_header_changes_no_answer_but_as_the_reference_says(slots: int, tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5", slots=slots)
    sound, content = told(read_header(entry.path)), entry.path.read_bytes()
    assert sound.offsets is not None
    random = np.random.default_rng(slots)
    kept = 0
    for place in random.choice(min(sound.offsets.values()), FLIPS, replace=False).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        entry.path.write_bytes(changed)
        found = expected_header(entry)
        if found is not None and told(found) != sound:
            assert told(found) == told(read_header(entry.path)), f"bit of byte {place}"
        kept += found is not None
    assert 0 < kept < FLIPS


def test_both_ways_go_through_one_file_at_once(tmp_path: Path) -> None:
    entry = write(tmp_path / "train_0.hdf5")  # HDF5 shares a file that is open twice, and refuses unlike ways to close
    with ThreadPoolExecutor(2) as threads:
        quick = threads.submit(lambda: [expected_header(entry) for _ in range(200)])
        slow = threads.submit(lambda: [read_header(entry.path) for _ in range(50)])
        assert all(header is not None for header in quick.result())
        assert len(slow.result()) == 50
