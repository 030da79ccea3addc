"""Gzip datasets inflated without HDF5 are byte for byte what h5py reads; all else is left to h5py."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.shards import flat_files, gzip_chunks
from bert_pytorch.shards.flat_files import parts_by_h5py
from bert_pytorch.shards.gzip_chunks import NotPlainGzipError, row_bands


def isal() -> ModuleType:
    """Return the faster library, which is optional."""
    return pytest.importorskip("isal.isal_zlib")  # type: ignore[no-any-return]


@pytest.fixture(params=[lambda: zlib, isal], ids=["zlib", "isal"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test pass by both libraries."""
    monkeypatch.setattr(gzip_chunks, "inflating", request.param())
    monkeypatch.setattr(flat_files, "_BYTES_AT_ONCE", 100)  # the reference reads many pieces


def joined(path: Path, name: str = "input_ids") -> bytes:
    with h5py.File(path) as file, path.open("rb") as raw:
        return b"".join(band.data for band in row_bands(raw.fileno(), file[name]))


def by_h5py(path: Path, name: str = "input_ids") -> bytes:
    with h5py.File(path) as file:
        return b"".join(part.data for part in parts_by_h5py(path, file[name]))


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2 if dtype == "?" else 120, shape).astype(dtype)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", ["<i4", ">i8", "<u2", "i1", "?"])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((50, 16), (7, 5)),
        ((50, 16), (7, 16)),
        ((50, 16), (50, 16)),
        ((48, 16), (8, 8)),
        ((50,), (9,)),
        ((1, 1), (1, 1)),
    ],
)
def test_they_are_the_bytes_that_h5py_reads(
    shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, shuffle: bool, tmp_path: Path
) -> None:
    path, data = tmp_path / "a.hdf5", values(dtype, shape)
    with h5py.File(path, "w") as file:
        file.create_dataset("input_ids", data=data, chunks=chunks, compression="gzip", shuffle=shuffle)
    assert joined(path) == by_h5py(path) == data.tobytes()


def plain(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data)


def in_chunks(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data, chunks=(7, 16))


def lzf(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data, chunks=(7, 16), compression="lzf")


def with_checksums(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data, chunks=(7, 16), compression="gzip", fletcher32=True)


def with_offsets(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data, chunks=(7, 16), compression="gzip", scaleoffset=0)


def with_a_chunk_absent(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data.shape, "<i4", chunks=(7, 16), compression="gzip", fillvalue=3)
    file["input_ids"][:7] = data[:7]


def with_a_chunk_as_it_is(file: h5py.File, data: np.ndarray) -> None:
    file.create_dataset("input_ids", data=data, chunks=(7, 16), compression="gzip")
    file["input_ids"].id.write_direct_chunk((7, 0), data[7:14].tobytes(), filter_mask=1)


def in_three_bytes(file: h5py.File, data: np.ndarray) -> None:
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(24)
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((7, 16))
    created.set_deflate(4)
    h5py.h5d.create(file.id, b"input_ids", kind, h5py.h5s.create_simple(data.shape), created)
    file["input_ids"][:] = data


@pytest.mark.parametrize(
    "write",
    [
        plain,
        in_chunks,
        lzf,
        with_checksums,
        with_offsets,
        with_a_chunk_absent,
        with_a_chunk_as_it_is,
        in_three_bytes,
    ],
)
def test_other_datasets_are_left_to_h5py(write: Callable[[h5py.File, np.ndarray], None], tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        write(file, values("<i4", (50, 16)))
    with pytest.raises(NotPlainGzipError):
        joined(path)
    with h5py.File(path) as file:
        assert by_h5py(path) == file["input_ids"][:].tobytes()


def test_chunks_too_large_to_inflate_in_memory_are_left_to_h5py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("input_ids", data=values("<i4", (50, 16)), chunks=(7, 4), compression="gzip")
    monkeypatch.setattr(gzip_chunks, "_LARGEST", 7 * 16 * 4 - 1)
    with pytest.raises(NotPlainGzipError):
        joined(path)


@pytest.mark.parametrize(
    "content",
    [
        bytes(60),
        zlib.compress(bytes(7 * 16 * 4 + 1)),
        zlib.compress(bytes(7 * 16 * 4 - 1)),
        zlib.compress(bytes(2**24)),
        zlib.compress(bytes(7 * 16 * 4))[:-4] + b"sum!",
        zlib.compress(bytes(7 * 16 * 4))[:-4],
    ],
    ids=["no gzip", "one byte more", "one byte less", "far more", "wrong checksum", "cut off"],
)
def test_a_damaged_chunk_is_left_to_h5py_which_names_its_row(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("input_ids", data=values("<i4", (50, 16)), chunks=(7, 16), compression="gzip")
        file["input_ids"].id.write_direct_chunk((14, 0), content)
    with pytest.raises(NotPlainGzipError):
        joined(path)
    if content[:2] != zlib.compress(b"")[:2]:
        with pytest.raises(DamagedShardError, match="input_ids cannot be decompressed from row 14 on"):
            by_h5py(path)


def test_rows_of_nothing_are_left_to_h5py(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("input_ids", (50, 0), "<i4", maxshape=(None, None), chunks=(7, 4), compression="gzip")
    with pytest.raises(NotPlainGzipError):
        joined(path)
    assert by_h5py(path) == b""


@pytest.mark.parametrize("offset", [2**64 - 16, 2**63 - 1, 2**62])
def test_a_chunk_at_an_impossible_place_is_damage_of_its_row(offset: int, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("input_ids", data=values("<i4", (50, 16)), chunks=(25, 16), compression="gzip")
        found = data.id.get_chunk_info(1).byte_offset
    content = path.read_bytes()
    assert content.count(struct.pack("<Q", found)) == 1
    path.write_bytes(content.replace(struct.pack("<Q", found), struct.pack("<Q", offset)))
    with pytest.raises(NotPlainGzipError):
        joined(path)
    with pytest.raises(DamagedShardError, match="input_ids cannot be decompressed from row 25 on"):
        by_h5py(path)
