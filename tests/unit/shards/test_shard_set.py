"""Reading sets: any rows in any order from many files, foreign ones too, and one message for what cannot be read."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.data.statistics import unigram_entropy
from bert_pytorch.errors import InputError
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards import open_shards as open_shards_module
from bert_pytorch.shards.layouts import BY_SLOT, COLUMNS
from bert_pytorch.shards.opening import find_shards, open_shards
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.vocabulary import vocabulary_sha256, vocabulary_text
from tests.support.sequence_rows import WORDS, assert_same_rows, make_rows, split_rows


def write_set(folder: Path, rows: SequenceRows, sizes: list[int], compression: str = "none") -> None:
    start = 0
    for index, size in enumerate(sizes):
        write_shard(folder / f"train_{index}.hdf5", split_rows(rows, start, start + size), {}, compression)  # type: ignore[arg-type]
        start += size


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(("pairs", "slots"), [(True, 0), (False, 0), (True, 5), (False, 5)])
def test_rows_come_back_in_the_order_asked_for(pairs: bool, slots: int, compression: str, tmp_path: Path) -> None:
    rows = make_rows(60, 16, pairs, slots)
    write_set(
        tmp_path, rows, [3, 1, 5, 2, 7, 4, 9, 6, 8, 1, 10, 4], compression
    )  # train_10 follows train_9, not train_1
    shards = open_shards(tmp_path)
    assert (shards.num_sequences, shards.sequence_length) == (60, 16)
    assert (shards.has_next_sentence, shards.static) == (pairs, slots > 0)
    for chosen in (np.arange(60), np.random.default_rng(0).integers(0, 60, 200), np.array([59, 0, 59]), np.array([4])):
        assert_same_rows(shards.rows(chosen), rows, chosen)


def test_what_is_read_may_be_changed_without_changing_the_shard(tmp_path: Path) -> None:
    write_set(tmp_path, make_rows(4), [4])
    shards = open_shards(tmp_path)
    shards.rows(np.arange(4)).input_ids[:] = 0
    assert shards.rows(np.arange(4)).input_ids.any()


def test_no_rows_are_a_possible_choice(tmp_path: Path) -> None:
    write_set(tmp_path, make_rows(4), [4])
    rows = open_shards(tmp_path).rows(np.empty(0, np.int64))
    assert rows.input_ids.shape == (0, 16)


def test_a_row_outside_the_set_is_an_error_of_the_caller(tmp_path: Path) -> None:
    write_set(tmp_path, make_rows(4), [4])
    for index in (4, -1):
        with pytest.raises(IndexError):
            open_shards(tmp_path).rows(np.array([index]))


def test_foreign_native_shards_are_read(tmp_path: Path) -> None:
    rows = make_rows(5)
    with h5py.File(tmp_path / "anything.hdf5", "w") as file:  # as the fork writes them: gzip, no attributes
        positions = np.stack([np.zeros(5, int), rows.segment_b_starts - 1, rows.lengths - 1], 1)
        file.create_dataset("input_ids", data=rows.input_ids, dtype="i4", compression="gzip")
        file.create_dataset("special_token_positions", data=positions, dtype="i4", compression="gzip")
        file.create_dataset("next_sentence_labels", data=rows.next_sentence_labels, dtype="i1", compression="gzip")
    shards = open_shards(tmp_path)
    assert shards.vocabulary is None
    assert_same_rows(shards.rows(np.arange(5)), rows, np.arange(5))


def test_foreign_nvidia_shards_with_all_slots_used_are_read(tmp_path: Path) -> None:
    rows = make_rows(6, 16, True, slots=3)
    assert rows.static_masks is not None
    assert rows.static_masks.counts[-1] == 3
    columns = np.arange(16)
    with h5py.File(tmp_path / "books_training_0.hdf5", "w") as file:
        inside = columns < rows.lengths[:, None]
        file.create_dataset("input_ids", data=rows.input_ids, compression="gzip")
        file.create_dataset("input_mask", data=inside, dtype="i1", compression="gzip")
        file.create_dataset("segment_ids", data=inside & (columns >= rows.segment_b_starts[:, None]), dtype="i1")
        file.create_dataset("masked_lm_positions", data=rows.static_masks.positions, dtype="i8")
        file.create_dataset("masked_lm_ids", data=rows.static_masks.token_ids, dtype="i4")
        file.create_dataset("next_sentence_labels", data=rows.next_sentence_labels, dtype="i1")
    assert_same_rows(open_shards(tmp_path).rows(np.arange(6)), rows, np.arange(6))


def test_held_out_shards_are_never_trained_on(tmp_path: Path) -> None:
    for name in ("train_0", "eval_0", "books_test_1", "sub/eval_3", "wiki_training_0"):
        write_shard(tmp_path / f"{name}.hdf5", make_rows(2), {})
    assert {path.name for path in find_shards(tmp_path)} == {"train_0.hdf5", "wiki_training_0.hdf5"}
    assert {path.name for path in find_shards(tmp_path, "eval")} == {"eval_0.hdf5", "books_test_1.hdf5", "eval_3.hdf5"}
    with pytest.raises(InputError, match="never trained on"):
        open_shards(tmp_path / "eval_0.hdf5")
    assert open_shards(tmp_path / "train_0.hdf5", "eval").num_sequences == 2


def test_unfinished_files_are_not_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / ".partial-x-train_1.hdf5", make_rows(2), {})
    write_shard(tmp_path / "train_0.hdf5", make_rows(2), {})
    assert open_shards(tmp_path).num_sequences == 2


def test_open_files_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_shards_module, "most_mapped", lambda wanted: 4)
    rows = make_rows(40)
    write_set(tmp_path, rows, [1] * 40)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    shards = open_shards(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert_same_rows(shards.rows(np.arange(40)), rows, np.arange(40))
    assert len(os.listdir("/proc/self/fd")) <= before + 4  # noqa: PTH208
    shards.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("place", ["encoded/set", "encoded", "."])
def test_the_vocabulary_is_found_in_the_folder_or_above(place: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "encoded/set/train_0.hdf5", make_rows(3), {"vocabulary_sha256": vocabulary_sha256(WORDS)})
    (tmp_path / place / "vocab.txt").write_text(vocabulary_text(WORDS))
    assert open_shards(tmp_path / "encoded").vocabulary == WORDS
    assert "vocabulary of 100" in open_shards(tmp_path / "encoded").describe()


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    other = Vocabulary((*WORDS.tokens, "more"), lowercase=True)
    write_shard(
        tmp_path / "train_0.hdf5", make_rows(3), {"vocabulary_sha256": vocabulary_sha256(WORDS), "lowercase": True}
    )
    (tmp_path / "vocab.txt").write_text(vocabulary_text(other))
    found = f"{tmp_path} has 101 tokens and SHA-256 {vocabulary_sha256(other)[:12]}"
    with pytest.raises(InputError, match=rf"train_0.hdf5: .*SHA-256 {vocabulary_sha256(WORDS)[:12]}…\); {found}"):
        open_shards(tmp_path)
    assert open_shards(tmp_path, vocabulary=WORDS).vocabulary == WORDS
    with pytest.raises(InputError, match=r"lowercase text, but the vocabulary \(the one given\) is cased"):
        open_shards(tmp_path, vocabulary=WORDS._replace(lowercase=False))


def test_a_given_vocabulary_that_is_not_theirs_is_refused_and_their_own_named(tmp_path: Path) -> None:
    other = Vocabulary((*WORDS.tokens, "more"), lowercase=True)
    write_shard(tmp_path / "set/train_0.hdf5", make_rows(3), {"vocabulary_sha256": vocabulary_sha256(WORDS)})
    with pytest.raises(InputError, match=r"the one given has 101 tokens .* encode the text again"):
        open_shards(tmp_path, vocabulary=other)
    (tmp_path / "vocab.txt").write_text(vocabulary_text(WORDS))
    with pytest.raises(InputError, match=rf"Its own is {tmp_path / 'vocab.txt'}: leave --vocab_file out"):
        open_shards(tmp_path, vocabulary=other)


@pytest.mark.parametrize("given", [True, False])
def test_an_id_outside_the_vocabulary_is_named(given: bool, tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(30), {})
    small = WORDS._replace(tokens=WORDS.tokens[:50])
    if not given:
        (tmp_path / "vocab.txt").write_text(vocabulary_text(small))
    shards = open_shards(tmp_path, vocabulary=small if given else None)
    with pytest.raises(InputError, match=r"train_0.hdf5: row 0: input_ids: found token id \d+, but the vocabulary"):
        shards.rows(np.arange(30))


@pytest.mark.parametrize("vocabulary", [WORDS, None])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("input_ids", -1, "input_ids: found token id -1, but"),
        ("masked_lm_ids", 100, "masked_lm_ids: found token id 100, but the vocabulary has 100 tokens"),
        ("masked_lm_ids", -3, "masked_lm_ids: found token id -3, but"),
        ("masked_lm_positions", 16, "masked_lm_positions has 16 in slot 0, wanted 1 to 15"),
        ("masked_lm_positions", -1, "masked_lm_positions has -1 in slot 0, wanted 1 to 15"),
        ("masked_lm_positions", 0, "masked_lm_positions has 0 in slot 0, wanted 1 to 15"),
    ],
)
def test_damaged_static_masks_are_refused_with_file_and_row(
    column: str, value: int, message: str, vocabulary: Vocabulary | None, tmp_path: Path
) -> None:
    write_shard(tmp_path / "train_1.hdf5", make_rows(4, slots=3), {})  # its last row is full: 16 tokens
    with h5py.File(tmp_path / "train_1.hdf5", "r+") as file:
        file[column][3, 0] = value
    shards = open_shards(tmp_path, vocabulary=vocabulary)
    shards.rows(np.arange(3))
    if vocabulary is None and column != "masked_lm_positions":
        shards.rows(np.arange(4))  # no vocabulary, no ids that are too large
    else:
        with pytest.raises(InputError, match=f"train_1.hdf5: row 3: {message}"):
            shards.rows(np.arange(4)[::-1])


@pytest.mark.parametrize(("positions", "found"), [([0, 4, 16], "17 tokens"), ([0, 9, 4], "from position 10")])
def test_rows_with_impossible_edges_are_refused_with_file_and_row(
    positions: list[int], found: str, tmp_path: Path
) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(4), {})
    with h5py.File(tmp_path / "train_0.hdf5", "r+") as file:
        file["special_token_positions"][2] = positions
    with pytest.raises(InputError, match=f"train_0.hdf5: row 2: found .*{found}"):
        open_shards(tmp_path).rows(np.array([1, 2]))


def test_casing_of_a_bare_vocabulary_is_the_callers_and_that_of_a_described_one_is_not(tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(3), {})
    (tmp_path / "vocab.txt").write_text(vocabulary_text(WORDS))

    def casing(otherwise: bool) -> bool | None:
        vocabulary = open_shards(tmp_path, otherwise_lowercase=otherwise).vocabulary
        return None if vocabulary is None else vocabulary.lowercase

    assert [casing(True), casing(False)] == [True, False]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert casing(False) is True
    write_shard(tmp_path / "train_0.hdf5", make_rows(3), {"lowercase": False})  # what the shard itself says
    assert casing(True) is False


def write_bytes(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def make_bad(case: str, folder: Path) -> None:
    write_shard(folder / "train_0.hdf5", make_rows(4), {})
    whole = (folder / "train_0.hdf5").read_bytes()
    rows = make_rows(4)
    match case:
        case "truncated":
            write_bytes(folder, "train_1.hdf5", whole[: len(whole) // 2])
        case "empty file":
            write_bytes(folder, "train_1.hdf5", b"")
        case "not HDF5":
            write_bytes(folder, "train_1.hdf5", b"\x00garbage" * 99)
        case "two lengths":
            write_shard(folder / "long/train_0.hdf5", make_rows(4, 32), {})
        case "two layouts":
            write_shard(folder / "static/train_0.hdf5", make_rows(4, slots=2), {})
        case "two tasks":
            write_shard(folder / "single/train_0.hdf5", make_rows(4, pairs=False), {})
        case "two vocabularies":
            for index in (1, 2):
                write_shard(folder / f"{index}/train_0.hdf5", make_rows(4), {})
                write_bytes(folder / str(index), "vocab.txt", vocabulary_text(WORDS).encode() + b"x\n" * index)
            (folder / "2" / "vocab.txt").write_text(vocabulary_text(WORDS) + "y\n")
        case "rows disagree":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["input_ids"], file["special_token_positions"] = rows.input_ids, np.zeros((3, 3), int)
                file["next_sentence_labels"] = rows.next_sentence_labels
        case "no rows":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["input_ids"], file["special_token_positions"] = np.zeros((0, 16), int), np.zeros((0, 3), int)
                file["next_sentence_labels"] = np.zeros(0, int)
        case "other datasets":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["pixels"] = np.zeros(3)
        case "half packed":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["input_ids"], file["next_sentence_positions"] = rows.input_ids, np.zeros(4)
        case "wrong dtype":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["input_ids"], file["special_token_positions"] = np.zeros((4, 16), float), np.zeros((4, 3), int)
                file["next_sentence_labels"] = rows.next_sentence_labels
        case "external storage" | "virtual" | "external link" | "soft link":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["special_token_positions"] = np.zeros((4, 3), int)
                file["next_sentence_labels"] = rows.next_sentence_labels
                if case == "external storage":
                    file.create_dataset("input_ids", (4, 16), "<i4", external=[("/etc/passwd", 0, 256)])
                elif case == "virtual":
                    source = h5py.VirtualSource(folder / "train_0.hdf5", "input_ids", (4, 16))
                    layout = h5py.VirtualLayout((4, 16), "<i4")
                    layout[:] = source
                    file.create_virtual_dataset("input_ids", layout)
                elif case == "external link":
                    file["input_ids"] = h5py.ExternalLink("train_0.hdf5", "/input_ids")
                else:
                    file["ids"], file["input_ids"] = rows.input_ids, h5py.SoftLink("/ids")
        case "long rows":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file.create_dataset("input_ids", (1, 10**12), "<i4", chunks=(1, 1024))
                file["special_token_positions"], file["next_sentence_labels"] = np.zeros((1, 3), int), np.zeros(1, int)
        case "other widths":
            write_shard(folder / "train_1.hdf5", make_rows(4, slots=2), {})
            with h5py.File(folder / "train_1.hdf5", "r+") as file:
                del file["segment_ids"]
                file.create_dataset("segment_ids", (4, 2**45), "<i1", chunks=(1, 1024))
        case "wide rows":
            write_shard(folder / "train_1.hdf5", make_rows(4, slots=2), {})
            with h5py.File(folder / "train_1.hdf5", "r+") as file:
                for name in ("masked_lm_positions", "masked_lm_ids"):
                    del file[name]
                    file.create_dataset(name, (4, 2**45), "<i4", chunks=(1, 1024))
        case "no ends":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                file["input_ids"], file["special_token_positions"] = rows.input_ids, np.zeros((4, 1), int)
                file["next_sentence_labels"] = rows.next_sentence_labels
        case "more than fits":
            with h5py.File(folder / "train_1.hdf5", "w") as file:
                for name, column in COLUMNS["packed"].items():  # counted, they would fill the memory; read, the disk
                    wide = 2 if name in BY_SLOT else 16
                    file.create_dataset(name, (2**60, wide), column.dtype, chunks=(1024, wide), compression="gzip")
        case "unfinished":
            write_bytes(folder, "unfinished.json", b"{}")
        case "damaged manifest":
            write_bytes(folder, "manifest.json", b"{")
        case "incomplete manifest":
            write_bytes(folder, "manifest.json", json.dumps({"layout": "native"}).encode())


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("truncated", r"train_1.hdf5: not a readable HDF5 file. It seems truncated"),
        ("empty file", "train_1.hdf5: the file is empty"),
        ("not HDF5", "train_1.hdf5: not a readable HDF5 file"),
        ("two lengths", r"more than one sequence length; name one of the folders:\n  - 16: .*\n  - 32: .*long"),
        ("two layouts", r"more than one layout(?s:.*)static"),
        ("two tasks", r"more than one task(?s:.*)single"),
        ("two vocabularies", "more than one vocabulary"),
        ("rows disagree", "train_1.hdf5: its datasets differ in rows"),
        ("no rows", "train_1.hdf5: it has no rows"),
        ("other datasets", "found the datasets pixels; wanted"),
        ("half packed", r"found the datasets .*; wanted the datasets .* \(packed\)"),
        ("wrong dtype", "input_ids has shape .* of float64, wanted whole numbers"),
        *(
            (case, r"train_1.hdf5: input_ids stands elsewhere \(a link, external storage or a virtual dataset\)")
            for case in ("external storage", "virtual", "external link", "soft link")
        ),
        ("long rows", "train_1.hdf5: its rows have 1000000000000 tokens, wanted 65536 at most"),
        ("other widths", r"train_1.hdf5: its datasets differ in width: .*'segment_ids': \(4, 35184372088832\)"),
        ("wide rows", "train_1.hdf5: masked_lm_positions has rows of 35184372088832 values, wanted 65536 at most"),
        ("no ends", "train_1.hdf5: special_token_positions has rows of 1 values, wanted 2 or 3"),
        ("more than fits", "train_1.hdf5: its datasets have [0-9,]* bytes, more than a file of [0-9,]* can hold"),
        ("unfinished", "this set is not finished"),
        ("damaged manifest", "manifest.json: it is not JSON"),
        ("incomplete manifest", "manifest.json: missing or wrong: .*vocabulary_sha256"),
    ],
)
def test_a_bad_set_gets_one_message(case: str, message: str, tmp_path: Path) -> None:
    make_bad(case, tmp_path)
    with pytest.raises(InputError, match=message):
        open_shards(tmp_path)


def test_no_shards_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no shard .* found. Make some: python -m bert_pytorch.corpus encode"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="no held-out shard"):
        open_shards(tmp_path, "eval")
    with pytest.raises(InputError, match="no such file or folder"):
        open_shards(tmp_path / "nowhere")
    write_shard(tmp_path / "eval_0.hdf5", make_rows(2), {})
    with pytest.raises(InputError, match="only held-out shards"):
        open_shards(tmp_path)


@pytest.mark.parametrize("slots", [0, 4])
@pytest.mark.parametrize("with_vocabulary", [True, False])
def test_unigram_entropy_is_that_of_the_uncorrupted_words(slots: int, with_vocabulary: bool, tmp_path: Path) -> None:
    rows = make_rows(50, slots=slots)
    write_set(tmp_path, rows, [20, 30])
    if with_vocabulary:
        (tmp_path / "vocab.txt").write_text(vocabulary_text(WORDS))
    words: list[int] = []
    for row in range(50):
        ids = rows.input_ids[row, : rows.lengths[row]].copy()
        if rows.static_masks is not None:
            for slot in range(rows.static_masks.counts[row]):
                ids[rows.static_masks.positions[row, slot]] = rows.static_masks.token_ids[row, slot]
        words += [int(token) for token in ids if token not in (2, 3)]
    shares = [words.count(word) / len(words) for word in set(words)]
    assert unigram_entropy(open_shards(tmp_path)) == pytest.approx(-sum(p * np.log(p) for p in shares), rel=1e-12)
