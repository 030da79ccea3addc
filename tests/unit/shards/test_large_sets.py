"""Sets of many or huge shards: little is opened, mappings keep within limits, damage met late is an error, no crash."""

import gc
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import re
import resource
import traceback
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards.manifest import Manifest, ShardRecord, SplitCounts
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import vocabulary_sha256, vocabulary_text
from tests.support.sequence_rows import WORDS, assert_same_rows, make_rows, split_rows

LENGTH = 16
ATTRIBUTES = {"vocabulary_sha256": vocabulary_sha256(WORDS), "lowercase": True}
NOTHING = SplitCounts(documents=0, sequences=0, tokens=0)


def write_manifest(folder: Path, rows_of: dict[str, int], next_sentence: bool = True) -> None:
    records = [
        ShardRecord(name=name, rows=rows, tokens=0, bytes=(folder / name).stat().st_size, sha256="")
        for name, rows in rows_of.items()
    ]
    manifest = Manifest(
        layout="native",
        sequence_length=LENGTH,
        next_sentence=next_sentence,
        vocabulary_sha256=ATTRIBUTES["vocabulary_sha256"],
        vocabulary_size=len(WORDS.tokens),
        lowercase=True,
        seed=0,
        settings={},
        input_sha256="",
        fingerprint="",
        train=NOTHING,
        eval=NOTHING,
        shards=tuple(records),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    (folder / "vocab.txt").write_text(vocabulary_text(WORDS))


def write_set(folder: Path, sizes: list[int], *, manifest: bool = True, compression: str = "none") -> SequenceRows:
    rows, start = make_rows(sum(sizes), LENGTH), 0
    for index, size in enumerate(sizes):
        part = split_rows(rows, start, start + size)
        write_shard(folder / f"train_{index}.hdf5", part, ATTRIBUTES, compression)  # type: ignore[arg-type]
        start += size
    if manifest:
        write_manifest(folder, {f"train_{index}.hdf5": size for index, size in enumerate(sizes)})
    return rows


def open_descriptors() -> int:
    gc.collect()  # errors caught before hold frames, and these hold sets
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that HDF5 opens from now on."""
    found: list[str] = []
    genuine = h5py.h5f.open  # h5py.File calls it too

    def counted(name: bytes, *arguments: object, **more: object) -> h5py.h5f.FileID:
        found.append(Path(os.fsdecode(name)).name)
        return genuine(name, *arguments, **more)

    monkeypatch.setattr(h5py.h5f, "open", counted)
    return found


def in_a_process(work: Callable[[Path], None], folder: Path) -> None:
    """Run what may lower limits for good, or be killed by a signal, in a child of this process."""

    def run() -> None:
        try:
            work(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_only_the_first_shard_and_those_touched_are_opened_and_each_once(tmp_path: Path, opened: list[str]) -> None:
    rows = write_set(tmp_path, [3] * 40)
    opened.clear()
    shards = open_shards(tmp_path)
    assert (shards.num_sequences, len(shards.paths), shards.vocabulary) == (120, 40, WORDS)
    assert opened == ["train_0.hdf5"]
    chosen = np.array([119, 0, 60, 61, 119])
    for _ in range(3):  # closing forgets mappings, not headers
        assert_same_rows(shards.rows(chosen), rows, chosen)
        assert shards.lengths(chosen).tolist() == rows.lengths[chosen].tolist()
        shards.close()
    assert sorted(opened) == ["train_0.hdf5", "train_20.hdf5", "train_39.hdf5"]


def test_shards_without_a_manifest_are_opened_once_at_start_and_never_again(tmp_path: Path, opened: list[str]) -> None:
    rows = write_set(tmp_path, [3] * 10, manifest=False)
    opened.clear()
    shards = open_shards(tmp_path)
    for _ in range(3):
        assert_same_rows(shards.rows(np.arange(30)), rows, np.arange(30))
        shards.close()
    assert sorted(opened) == sorted(f"train_{index}.hdf5" for index in range(10))


def write_sparse_shard(path: Path, n: int, held: np.ndarray, rows: SequenceRows) -> None:
    """Write a contiguous shard of n rows of which the file system stores those at `held` only."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    edges = np.stack([np.zeros_like(rows.lengths), rows.segment_b_starts - 1, rows.lengths - 1], axis=1)
    assert rows.next_sentence_labels is not None
    with h5py.File(path, "w") as file:
        for name, kind, data in (
            ("input_ids", h5py.h5t.STD_I32LE, rows.input_ids),
            ("special_token_positions", h5py.h5t.STD_I32LE, edges),
            ("next_sentence_labels", h5py.h5t.STD_I8LE, rows.next_sentence_labels),
        ):
            space = h5py.h5s.create_simple((n, *data.shape[1:]))
            h5py.h5d.create(file.id, name.encode(), kind, space, early)
            for place, row in zip(held.tolist(), data, strict=True):
                file[name][place] = row
        file.attrs.update({**ATTRIBUTES, "next_sentence": True})


def test_memory_and_what_is_read_do_not_grow_with_rows(tmp_path: Path) -> None:
    n = 10**8  # an index of so many rows would be 800 MB, the rows themselves 7.7 GB
    held, rows = np.array([0, 1, n // 2, n - 2, n - 1]), make_rows(5, LENGTH)
    write_sparse_shard(tmp_path / "train_0.hdf5", n, held, rows)
    if (tmp_path / "train_0.hdf5").stat().st_blocks * 512 > 10**8:
        pytest.skip("this file system stores holes in files")
    write_manifest(tmp_path, {"train_0.hdf5": n})
    tracemalloc.start()
    try:
        shards = open_shards(tmp_path)
        order = np.array([4, 0, 2, 3, 1, 4])
        found, lengths = shards.rows(held[order]), shards.lengths(held[order])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shards.num_sequences == n
    assert_same_rows(found, rows, order)
    assert lengths.tolist() == rows.lengths[order].tolist()
    assert peak < 4 * 2**20  # the vocabulary, and what Python keeps of modules, included


def test_memory_of_a_shard_that_was_not_touched_is_small(tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(4, LENGTH), ATTRIBUTES)
    names = [f"train_{index}.hdf5" for index in range(2000)]
    for name in names[1:]:
        os.link(tmp_path / names[0], tmp_path / name)
    write_manifest(tmp_path, dict.fromkeys(names, 4))
    open_shards(tmp_path)  # what Python keeps of modules and regular expressions
    before = open_descriptors()
    tracemalloc.start()
    try:
        shards = open_shards(tmp_path)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(shards.paths), open_descriptors()) == (2000, before)
    assert kept / 2000 < 2048


def test_places_in_the_set_are_those_of_counting(tmp_path: Path) -> None:
    sizes = [3, 1, 5, 2]
    rows = write_set(tmp_path, sizes)
    shards = open_shards(tmp_path)
    assert shards.shard_sizes.tolist() == sizes
    owners = [shard for shard, size in enumerate(sizes) for _ in range(size)]
    chosen = np.random.default_rng(0).integers(0, 11, 50)
    assert shards.owners(chosen).tolist() == [owners[row] for row in chosen]
    lengths = shards.lengths(chosen)
    assert lengths.dtype == np.int32
    assert lengths.tolist() == rows.lengths[chosen].tolist()
    assert shards.rows(chosen).lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_lengths_of_static_shards_are_those_of_their_rows(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    rows = make_rows(20, LENGTH, slots=3)
    for index, (start, stop) in enumerate(itertools.pairwise((0, 9, 10, 20))):
        write_shard(tmp_path / f"set/train_{index}.hdf5", split_rows(rows, start, stop), {}, compression)  # type: ignore[arg-type]
    chosen = np.random.default_rng(0).permutation(20)
    assert open_shards(tmp_path / "set").lengths(chosen).tolist() == rows.lengths[chosen].tolist()


def read_under_a_low_limit(folder: Path) -> None:
    rows = make_rows(400, LENGTH)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
    before = open_descriptors()
    shards = open_shards(folder)
    draw = np.random.default_rng(0)
    for _ in range(3):
        for _ in range(3):
            chosen = draw.permutation(400)  # every shard, more than may be mapped
            assert_same_rows(shards.rows(chosen), rows, chosen)
            assert shards.lengths(chosen).tolist() == rows.lengths[chosen].tolist()
        assert before < open_descriptors() < 280, open_descriptors()
        shards.close()
        assert open_descriptors() == before
    with ThreadPoolExecutor(3) as pool:  # as the loader's threads do, each evicting what others read
        choices = [draw.permutation(400) for _ in range(12)]
        for found, chosen in zip(pool.map(shards.rows, choices), choices, strict=True):
            assert_same_rows(found, rows, chosen)
    shards.close()
    assert open_descriptors() == before


def test_under_a_low_limit_on_open_files_rows_are_right_and_no_descriptor_is_lost(tmp_path: Path) -> None:
    write_set(tmp_path, [1] * 400)
    in_a_process(read_under_a_low_limit, tmp_path)


def read_with_room_to_grow(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))
    before = open_descriptors()
    shards = open_shards(folder)
    shards.rows(np.arange(400))
    assert open_descriptors() == before + 400  # all of them: a shuffle over all shards would map one for every row
    assert 656 <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1000


def test_a_soft_limit_on_open_files_is_raised_where_the_hard_one_allows(tmp_path: Path) -> None:
    write_set(tmp_path, [1] * 400)
    in_a_process(read_with_room_to_grow, tmp_path)


def test_a_set_that_is_given_up_lets_go_of_its_files(tmp_path: Path) -> None:
    write_set(tmp_path, [2] * 10)
    before = open_descriptors()
    for _ in range(5):
        shards = open_shards(tmp_path)
        shards.rows(np.arange(20))
        assert open_descriptors() == before + 10
        del shards
        assert open_descriptors() == before


def cut_off_after_mapping(folder: Path) -> None:
    shards = open_shards(folder)
    shards.rows(np.arange(6000))
    os.truncate(folder / "train_1.hdf5", 4096)
    for read in (shards.rows, shards.lengths):
        with pytest.raises(DamagedShardError, match=r"train_1.hdf5: truncated: found 4,096 bytes") as caught:
            read(np.arange(5999, -1, -1))
        assert caught.value.path == folder / "train_1.hdf5"
    shards.rows(np.arange(3000))  # the other one is sound


def test_a_shard_cut_off_after_it_was_mapped_is_an_error_and_no_signal(tmp_path: Path) -> None:
    rows = make_rows(3000, LENGTH)
    for index in range(2):
        write_shard(tmp_path / f"train_{index}.hdf5", rows, ATTRIBUTES)
    write_manifest(tmp_path, {"train_0.hdf5": 3000, "train_1.hdf5": 3000})
    in_a_process(cut_off_after_mapping, tmp_path)


def test_a_shard_replaced_or_removed_after_it_was_mapped_is_read_as_it_was(tmp_path: Path) -> None:
    rows = write_set(tmp_path, [5, 5])
    shards = open_shards(tmp_path)
    shards.rows(np.arange(10))
    write_shard(tmp_path / "train_0.hdf5", make_rows(5, LENGTH, seed=9), ATTRIBUTES)  # renamed over the old one
    (tmp_path / "train_1.hdf5").unlink()
    assert_same_rows(shards.rows(np.arange(10)), rows, np.arange(10))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


@pytest.mark.parametrize("manifest", [True, False])
def test_all_damaged_shards_are_named_at_once(manifest: bool, tmp_path: Path) -> None:
    write_set(tmp_path, [2] * 6, manifest=manifest)
    sizes = [(tmp_path / f"train_{index}.hdf5").stat().st_size for index in (1, 4)]
    for index in (1, 4):
        cut(tmp_path / f"train_{index}.hdf5")
    with pytest.raises(InputError) as caught:
        open_shards(tmp_path)
    message = str(caught.value)
    assert "2 damaged shards" in message
    assert re.findall(r"train_(\d).hdf5", message) == ["1", "4"]
    if manifest:
        assert all(f"found {size - 7:,} bytes, its manifest says {size:,}" in message for size in sizes)


def test_skipped_shards_of_a_manifest_keep_their_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = write_set(tmp_path, [2, 3, 4, 5])
    for index in (0, 2):  # the first one too: another vouches for the manifest
        cut(tmp_path / f"train_{index}.hdf5")
    with caplog.at_level(logging.WARNING):
        shards = open_shards(tmp_path, on_bad_shard="skip")
    assert shards.excluded == {0, 2}
    assert [re.findall(r"train_\d", record.getMessage()) for record in caplog.records] == [["train_0"], ["train_2"]]
    assert shards.num_sequences == 14
    sound = np.array([13, 2, 9, 4, 3])
    assert_same_rows(shards.rows(sound), rows, sound)
    shards.exclude([3])
    assert shards.excluded == {0, 2, 3}


def test_skipped_shards_without_a_manifest_are_no_part_of_the_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_set(tmp_path, [2, 3, 4], manifest=False)
    cut(tmp_path / "train_1.hdf5")
    with caplog.at_level(logging.WARNING):
        shards = open_shards(tmp_path, on_bad_shard="skip")
    assert [path.name for path in shards.paths] == ["train_0.hdf5", "train_2.hdf5"]
    assert shards.excluded == frozenset()
    assert "train_1.hdf5" in caplog.text
    assert_same_rows(shards.rows(np.arange(6)), rows, np.array([0, 1, 5, 6, 7, 8]))


def test_nothing_is_left_to_skip(tmp_path: Path) -> None:
    write_set(tmp_path, [2, 3])
    for path in tmp_path.glob("*.hdf5"):
        cut(path)
    with pytest.raises(InputError, match="2 damaged shards"):
        open_shards(tmp_path, on_bad_shard="skip")


def exchange(folder: Path, number: int, rows: SequenceRows, attributes: dict[str, str | bool]) -> None:
    """Put another shard in the place of one, of whose bytes the manifest knows."""
    path = folder / f"train_{number}.hdf5"
    write_shard(path, rows, attributes)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][number]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))


not_what_the_manifest_says = pytest.mark.parametrize(
    ("what", "attributes", "rows"),
    [
        ("num rows is 4", ATTRIBUTES, make_rows(4, LENGTH)),
        ("sequence length is 32", ATTRIBUTES, make_rows(5, 32)),
        ("layout is nvidia", ATTRIBUTES, make_rows(5, LENGTH, slots=2)),
        ("next sentence is False", ATTRIBUTES, make_rows(5, LENGTH, pairs=False)),
        ("vocabulary_sha256", {**ATTRIBUTES, "vocabulary_sha256": hashlib.sha256(b"").hexdigest()}, make_rows(5)),
        ("lowercase", {**ATTRIBUTES, "lowercase": False}, make_rows(5)),
    ],
)


@not_what_the_manifest_says
def test_a_shard_that_is_not_what_its_manifest_says_is_refused_when_it_is_touched(
    what: str, attributes: dict[str, str | bool], rows: SequenceRows, tmp_path: Path
) -> None:
    sound = write_set(tmp_path, [5, 5])
    exchange(tmp_path, 1, rows, attributes)
    shards = open_shards(tmp_path)
    assert_same_rows(shards.rows(np.arange(5)), sound, np.arange(5))
    with pytest.raises(DamagedShardError, match=rf"train_1.hdf5: .*{what}.*its manifest says") as caught:
        shards.rows(np.array([7]))
    assert caught.value.path == tmp_path / "train_1.hdf5"


@not_what_the_manifest_says
def test_the_first_shard_too_is_what_its_manifest_says(
    what: str, attributes: dict[str, str | bool], rows: SequenceRows, tmp_path: Path
) -> None:
    sound = write_set(tmp_path, [5, 5])
    exchange(tmp_path, 0, rows, attributes)
    with pytest.raises(InputError, match=rf"train_0.hdf5: .*{what}.*its manifest says"):
        open_shards(tmp_path)
    shards = open_shards(tmp_path, on_bad_shard="skip")
    assert (shards.excluded, shards.sequence_length) == (frozenset({0}), LENGTH)
    assert_same_rows(shards.rows(np.arange(5, 10)), sound, np.arange(5, 10))


@pytest.mark.parametrize("rows", [-5, 0, 2**62, 10**30])
def test_a_manifest_with_an_impossible_number_of_rows_is_refused(rows: int, tmp_path: Path) -> None:
    write_set(tmp_path, [5, 5])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["shards"][1]["rows"] = rows
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest.json: missing or wrong: shards"):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    ("column", "place", "value", "found"),
    [
        ("input_ids", (3, 0), 7, "found token id 7 at position 0, wanted .CLS. .2."),
        ("input_ids", (3, 5), 1 << 20, "found token id 1048576, but the vocabulary has 100 tokens"),
        ("special_token_positions", (3, 2), 14, "wanted .SEP. .3."),
        ("special_token_positions", (3, 2), 1 << 18, "found 262145 tokens"),
    ],
)
def test_a_flipped_bit_is_named_with_its_file_and_row(
    column: str, place: tuple[int, int], value: int, found: str, tmp_path: Path
) -> None:
    write_set(tmp_path, [4, 4])  # the last row is full: 16 tokens
    with h5py.File(tmp_path / "train_1.hdf5", "r+") as file:
        file[column][place] = value
    shards = open_shards(tmp_path)
    with pytest.raises(DamagedShardError, match=f"train_1.hdf5: row 3: .*{found}") as caught:
        shards.rows(np.array([1, 7, 4]))
    assert (caught.value.path, caught.value.row) == (tmp_path / "train_1.hdf5", 3)
    shards.rows(np.array([1, 6, 4]))  # its other rows are sound
