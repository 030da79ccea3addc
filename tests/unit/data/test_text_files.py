"""What is text, which of it is held out, and that whatever is wrong with it is one message."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.opening import held_out_beside, open_corpora, refuse_needless_text_options, text_among
from bert_pytorch.data.texts.finding import find_text_files, is_text
from bert_pytorch.errors import ConfigError, InputError, MissingDependencyError
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import make_rows
from tests.support.text_tables import write_dataset, write_dataset_dictionary, write_parquet
from tests.support.vocabularies import small_vocabulary

WORDS = small_vocabulary()


def first_text(path: Path, split: str = "train") -> str:
    """Return the first word of what is read, decoded from its pieces."""
    corpora = open_corpora((str(path),), split, config(path), WORDS, lowercase=True)  # type: ignore[arg-type]
    rows = corpora.sources[0].rows(np.zeros(1, np.int64))
    return "".join(WORDS.tokens[index] for index in rows.input_ids[0, 1 : rows.lengths[0] - 1]).replace("##", "")


def config(path: Path, **options: object) -> DataConfig:
    return DataConfig(input_dir=(str(path),), max_seq_len=32, **options)  # type: ignore[arg-type]


def open_train(path: Path, **options: object) -> None:
    open_corpora((str(path),), "train", config(path, **options), WORDS, lowercase=True)


def names(path: Path, split: str) -> list[str]:
    return [str(file.relative_to(path)) for file in find_text_files(path, split)]  # type: ignore[arg-type]


def test_held_out_parquet_is_told_by_the_names_of_files_then_of_folders(tmp_path: Path) -> None:
    training = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "testimony.parquet"]
    training += ["test_runs/train-0.parquet", "evaluations/x.parquet"]
    validation = ["data/validation-00000-of-00001.parquet", "en/dev/0000.parquet"]
    tests = ["data/test-00000-of-00001.parquet", "my_eval.parquet"]
    for name in (*training, *validation, *tests, ".hidden.parquet"):
        write_parquet(tmp_path / name, ["x"])
    (tmp_path / "README.md").write_text("x")
    assert names(tmp_path, "train") == sorted(training)
    assert names(tmp_path, "eval") == sorted(validation)
    for name in validation:
        (tmp_path / name).unlink()
    assert names(tmp_path, "eval") == sorted(tests)
    assert held_out_beside((str(tmp_path),)) == (str(tmp_path),)
    for name in tests:
        (tmp_path / name).unlink()
    assert held_out_beside((str(tmp_path),)) == ()
    with pytest.raises(InputError, match="no held-out text"):
        open_corpora((str(tmp_path),), "eval", config(tmp_path), WORDS, lowercase=True)
    only_tests = write_parquet(tmp_path / "only" / "test.parquet", ["rome"]).parent
    with pytest.raises(InputError, match="no training text; text named validation or test is never trained on"):
        open_train(only_tests)
    assert first_text(only_tests / "test.parquet") == "rome"  # what is named itself is meant


def test_a_dictionary_of_datasets_is_divided_and_one_dataset_is_not(tmp_path: Path) -> None:
    both = write_dataset_dictionary(tmp_path / "both", train=["france"], validation=["rome"], test=["paris"])
    assert [first_text(both), first_text(both, "eval")] == ["france", "rome"]
    assert held_out_beside((str(both),)) == (str(both),)
    less = write_dataset_dictionary(tmp_path / "less", train=["france"], test=["paris"])
    assert first_text(less, "eval") == "paris"
    one = write_dataset(tmp_path / "one", ["is", "rome"])
    assert [first_text(one), first_text(one, "eval")] == ["is", "is"]
    assert held_out_beside((str(one),)) == ()


def test_a_dataset_saved_by_datasets_itself_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    texts = ["rome", None, "the capital"] * 700  # more than a record batch of it
    datasets.Dataset.from_dict({"id": list(range(2100)), "text": texts}).save_to_disk(tmp_path / "d", num_shards=2)
    ours = write_dataset(tmp_path / "ours", texts, rows=1000)
    for name in ("state.json", "dataset_info.json"):
        theirs, mine = (json.loads((place / name).read_text()) for place in (tmp_path / "d", ours))
        assert theirs.keys() == mine.keys()
    opened = [
        open_corpora((str(path),), "train", config(path), WORDS, lowercase=True).sources[0]
        for path in (tmp_path / "d", ours)
    ]
    one, other = (source.rows(np.arange(1400)) for source in opened)
    assert np.array_equal(one.input_ids, other.input_ids)


def test_text_and_shards_do_not_mix_in_a_folder_and_plain_text_says_what_to_do(tmp_path: Path) -> None:
    write_parquet(tmp_path / "both" / "a.parquet", ["x"])
    write_shard(tmp_path / "both" / "train_0.hdf5", make_rows(3), {})
    with pytest.raises(InputError, match=r"(?s)both text and shards.*a\.parquet.*train_0\.hdf5"):
        is_text(tmp_path / "both")
    for name in ("a.txt", "b.jsonl", "c.csv", "d.txt.gz"):
        path = tmp_path / name.replace(".", "_") / name
        path.parent.mkdir()
        path.write_text("x")
        for named in (path, path.parent):
            with pytest.raises(InputError, match=rf"{name}: it is plain text; .*\.parquet.*corpus encode --input"):
                is_text(named)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "vocab.txt").write_text("x")
    assert not is_text(tmp_path / "shards")
    assert not is_text(tmp_path / "absent")
    with pytest.raises(InputError, match=r"absent\.parquet: there is no such file"):
        open_train(tmp_path / "absent.parquet")
    arrow = next(write_dataset(tmp_path / "d", ["x"]).glob("*.arrow"))
    with pytest.raises(InputError, match=r"one file of a dataset\. Name its folder"):
        is_text(arrow)


def test_text_needs_a_vocabulary_and_a_length_which_shards_refuse(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["x"])
    with pytest.raises(ConfigError, match=r"--vocab_file: .*corpus vocab --input FORMATTED"):
        open_corpora((str(path),), "train", config(path), None, lowercase=True)
    with pytest.raises(ConfigError, match="--max_seq_len: it is missing"):
        open_corpora((str(path),), "train", DataConfig(), WORDS, lowercase=True)
    write_shard(tmp_path / "s" / "train_0.hdf5", make_rows(3), {})
    shards = str(tmp_path / "s")
    assert text_among([shards, str(path)]) == [str(path)]
    refuse_needless_text_options([shards], DataConfig())
    refuse_needless_text_options([shards, str(path)], config(path))
    with pytest.raises(ConfigError, match="--max_seq_len --text_column: the data are shards"):
        refuse_needless_text_options([shards], config(path, text_column="body"))


def test_single_segments_of_text_and_pairs_of_shards_do_not_mix(tmp_path: Path) -> None:
    write_shard(tmp_path / "s" / "train_0.hdf5", make_rows(3), {})
    path = write_parquet(tmp_path / "a.parquet", ["rome"])
    with pytest.raises(InputError, match="corpora of more than one task"):
        open_corpora((str(tmp_path / "s"), str(path)), "train", config(path), WORDS, lowercase=True)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("parquet", {"text_column": "body"}, r'no column "body", it has: id, text\. .* with --text_column'),
        ("dataset", {"text_column": "body"}, r'no column "body", it has: id, text\. .* with --text_column'),
        ("parquet", {"text_column": "id"}, 'column "id" is INT64, wanted STRING. Name another --text_column'),
        ("dataset", {"text_column": "id"}, 'column "id" is int64, wanted string. Name another --text_column'),
    ],
)
def test_a_column_that_is_not_there_or_not_text(
    kind: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["x"]) if kind == "parquet" else write_dataset(tmp_path / "a", ["x"])
    with pytest.raises(InputError, match=message):
        open_train(path, **options)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    texts = [f"the capital of {number}" for number in range(60)]
    path = write_parquet(tmp_path / "a.parquet", texts, use_dictionary=False, write_statistics=False)
    folder = write_dataset(tmp_path / "d", texts, files=1)
    arrow = next(folder.glob("*.arrow"))
    for file, named in ((path, path), (arrow, folder)):
        whole = file.read_bytes()
        place = whole.index(b"the capital of 30") + 4
        not_utf8 = whole[:place] + b"\xff\xfe" + whole[place + 2 :]
        for content in (not_utf8, whole[: len(whole) // 2], whole[:-8], b"", b"x" * 300):
            file.write_bytes(content)
            with pytest.raises(InputError, match=rf"{file.name}: not a whole (Parquet|Arrow) file"):
                open_train(named)


def test_arrow_offsets_that_lead_out_of_the_file_are_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d", ["rome", "paris", "the"], files=1)
    arrow = next(folder.glob("*.arrow"))
    whole = arrow.read_bytes()
    offsets = np.array([0, 4, 9, 12], "<i4").tobytes()
    assert whole.count(offsets) == 1
    for wrong in ([0, 4, 9, 1 << 30], [0, 9, 4, 12], [-(1 << 20), 4, 9, 12]):
        arrow.write_bytes(whole.replace(offsets, np.array(wrong, "<i4").tobytes()))
        with pytest.raises(InputError, match="not a whole Arrow file"):
            open_train(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "[", "not a JSON object"),
        ("state.json", "[]", "not a JSON object"),
        ("state.json", "{}", '"_data_files" are not names'),
        ("state.json", '{"_data_files": [{"filename": "../a.arrow"}]}', '"_data_files" are not names'),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', '"_data_files" are not names'),
        ("state.json", '{"_data_files": [3]}', '"_data_files" are not names'),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow of its state.json missing"),
        ("state.json", '{"_data_files": [], "_indices_data_files": [{"filename": "i"}]}', "flatten_indices"),
        ("dataset_dict.json", '{"splits": ["../train"]}', '"splits" are not names'),
        ("dataset_dict.json", '{"splits": "train"}', '"splits" are not names'),
        ("dataset_dict.json", '{"splits": ["train"]}', "train/state.json: it is missing"),
    ],
)
def test_what_a_dataset_says_of_itself_is_not_believed(name: str, content: str, message: str, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d", ["x"])
    if name == "dataset_dict.json":
        (folder / "state.json").unlink()
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        open_train(folder)


def test_a_text_too_large_is_named_by_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_pytorch.columnar.library.LARGEST_DOCUMENT", 50)
    texts = ["x"] * 100 + ["y" * 51]
    for path, where in (
        (write_parquet(tmp_path / "a.parquet", texts, rows=40), "row 20 of row group 2"),
        (write_dataset(tmp_path / "d", texts, files=1, rows=70), "row 100"),
    ):
        with pytest.raises(InputError, match=f"{where} .* characters, the most that one document may have"):
            open_train(path)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["x"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"a\.parquet: reading it needs pyarrow.*requirements-extras"):
        open_train(path)


def test_a_copy_elsewhere_is_tokenized_for_itself(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["rome"])
    assert first_text(path) == "rome"
    shutil.copy(path, tmp_path / "b.parquet")
    write_parquet(path, ["paris"])
    assert [first_text(path), first_text(tmp_path / "b.parquet")] == ["paris", "rome"]
