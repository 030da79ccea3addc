"""Planning: documents are found whole, divided by bytes alone, and bad bytes are named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus import plan as plan_module
from bert_pytorch.corpus.plan import divide, find_documents, hold_out, read_documents, text_files
from bert_pytorch.errors import InputError

lines_strategy = st.text(st.sampled_from("ab é字.\u2028\x0c"), min_size=1, max_size=12).filter(
    lambda line: line.strip()
)


def write(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"{index:02}.txt" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@settings(max_examples=100, deadline=None)
@given(
    files=st.lists(st.lists(st.lists(lines_strategy, min_size=1, max_size=4), max_size=5), min_size=1, max_size=4),
    separator=st.sampled_from(["\n\n", "\n\n\n\n", "\n \t\n", "\n  \n\n", "\r\n\r\n"]),
    around=st.sampled_from(["", "\n", "\n\n", " \n\n"]),
)
def test_documents_are_read_back_line_by_line(
    files: list[list[list[str]]], separator: str, around: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("documents")
    contents = [around + separator.join("\n".join(document) for document in file) + around for file in files]
    table = find_documents(write(folder, *(content.encode() for content in contents)))
    wanted = [[line.strip() for line in document] for file in files for document in file]
    assert list(read_documents(table)) == wanted
    assert table.num_documents == len(wanted)


def test_some_documents_of_many_are_read_alone(tmp_path: Path) -> None:
    table = find_documents(write(tmp_path, b"\n\n".join(b"doc %d" % i for i in range(500)), b"last"))
    chosen = np.array([0, 3, 4, 250, 499, 500])
    assert list(read_documents(table.take(chosen))) == [
        ["doc 0"],
        ["doc 3"],
        ["doc 4"],
        ["doc 250"],
        ["doc 499"],
        ["last"],
    ]


@settings(deadline=None)
@given(count=st.integers(1, 300), fraction=st.sampled_from([0.0, 0.001, 0.01, 0.3, 0.99]), seed=st.integers(0, 99))
def test_the_held_out_part_is_the_fraction_but_at_least_one_of_two(count: int, fraction: float, seed: int) -> None:
    starts = np.arange(count, dtype=np.int64)
    table = find_documents([])._replace(file_indices=np.zeros(count, np.int32), starts=starts, ends=starts + 1)
    train, held_out = hold_out(table, fraction, seed)
    wanted = 0 if fraction == 0 else min(max(1, round(fraction * count)), count - 1)
    assert held_out.num_documents == wanted
    assert sorted([*train.starts, *held_out.starts]) == starts.tolist()
    assert (np.diff(train.starts) > 0).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200), st.integers(1, 20000))
def test_blocks_hold_every_document_once_in_order_and_stay_small(sizes: list[int], limit: int) -> None:
    ends = np.cumsum(sizes)
    table = find_documents([])._replace(
        files=(Path("unused"), Path("text")),
        file_indices=np.ones(len(sizes), np.int32),
        starts=ends - np.array(sizes),
        ends=ends,
    )
    blocks = divide(table, "train_", limit, first_number=7)
    assert np.array_equal(np.concatenate([block.documents.starts for block in blocks]), table.starts)
    assert [block.name for block in blocks] == [f"train_{index}" for index in range(len(blocks))]
    assert [block.number for block in blocks] == list(range(7, 7 + len(blocks)))
    assert max(block.documents.num_bytes for block in blocks) <= limit + max(sizes)
    assert len(blocks) <= -(-sum(sizes) // limit)
    assert all(block.documents.files == (Path("text"),) for block in blocks)


def test_bytes_that_are_not_text_are_named_by_file_and_offset(tmp_path: Path) -> None:
    first, second = write(tmp_path, b"good\n\nsome text\n\nna\xefve\n", b"a\n\nbin\x00ary")
    with pytest.raises(InputError, match=rf"{first}: byte 19 is 0xef, which is not UTF-8(?s:.*)iconv -f ISO-8859-1"):
        list(read_documents(find_documents([first])))
    with pytest.raises(InputError, match=rf"{second}: byte 6 is NUL"):
        list(read_documents(find_documents([second])))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert list(read_documents(find_documents(write(tmp_path, b"\xef\xbb\xbfhello")))) == [["hello"]]


def test_text_files_are_listed_in_one_order_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/.hidden.txt", ".work/x.txt", "c.json", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [str(path.relative_to(tmp_path)) for path in text_files([tmp_path])] == ["a/z.txt", "a.txt", "b.txt"]
    assert text_files([tmp_path / "c.json", tmp_path / "b.txt"]) == [tmp_path / "c.json", tmp_path / "b.txt"]


def test_text_whose_formatting_did_not_finish_is_refused(tmp_path: Path) -> None:
    write(tmp_path, b"x")
    (tmp_path / "unfinished.json").write_text("{}")
    with pytest.raises(InputError, match="formatting is not finished"):
        text_files([tmp_path])


def test_blocks_hold_several_documents_where_nobody_says_how_large_they_are() -> None:
    ends = np.cumsum([900_000] * 64)
    table = find_documents([])._replace(
        files=(Path("books"),), file_indices=np.zeros(64, np.int32), starts=ends - 900_000, ends=ends
    )
    assert min(block.documents.num_documents for block in divide(table, "")) >= 15


def test_many_files_are_searched_as_one_task_each_alike(tmp_path: Path) -> None:
    files = write(tmp_path, *(b"one\n\ntwo\n" * (index % 3) for index in range(1200)))
    table = find_documents(files)
    assert table.num_documents == sum((0, 2, 3)[index % 3] for index in range(1200))
    assert [table.files[index].name for index in table.file_indices[:4]] == ["01.txt", "01.txt", "02.txt", "02.txt"]
    assert len(plan_module._groups(files)) == 3
