"""Every kind of input gives the same documents, however it is packed, divided and encoded; damaged input is named."""

import bz2
import codecs
import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus import sources
from bert_pytorch.corpus.executors.pool import PoolConfig
from bert_pytorch.corpus.inputs import compression, stretches, tables, text
from bert_pytorch.corpus.inputs.compression import read_chunks
from bert_pytorch.corpus.inputs.stretches import ReadOptions
from bert_pytorch.corpus.sources import find_sources, hash_files, plan_units, read_unit
from bert_pytorch.errors import InputError, MissingDependencyError
from tests.support.commands import run
from tests.unit.corpus.conftest import AWKWARD_DOCUMENTS, Tool, contents

TEXTS = [
    'The first one. It has "two" sentences, and a comma.',
    "Here is na\u00efve \u4f60\u597d text!\nA second line; 'quoted'.\r\nA third.",
    "The third.",
    *(f"Document {number} says nothing new. " * (number % 7 + 1) for number in range(50)),
]


def zst(content: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    middle = len(content) // 2  # two frames, as pzstd writes them
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:middle], content[middle:]))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    ".bz2": lambda content: bz2.compress(content[:99]) + bz2.compress(content[99:]),
    ".zst": zst,
}


def table(texts: list[str], delimiter: str, quoting: int) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
    writer.writerow(["id", "text", "more"])
    writer.writerows([str(number), value, ""] for number, value in enumerate(texts))
    return file.getvalue()


def as_parquet(path: Path, texts: list[str | None], rows: int = 10) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {"id": range(len(texts)), "text": texts, "deep": [{"body": value} for value in texts]}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path


def one_line(texts: list[str]) -> list[str]:
    return [" ".join(value.split()).replace('"', "") for value in texts]


def write_all_kinds(folder: Path) -> dict[str, Path]:
    """The same documents as every kind of file."""
    plain = {
        ".txt": "\n\n\n".join(TEXTS),
        ".jsonl": "".join(json.dumps({"id": 1, "text": value}) + "\n" for value in TEXTS),
        ".json": "\n".join(json.dumps({"text": value}, ensure_ascii=False) for value in TEXTS),
        ".csv": table(TEXTS, ",", csv.QUOTE_MINIMAL),
    }
    made = {}
    for ending, content in plain.items():
        for packing, pack in PACKERS.items():
            made[ending + packing] = folder / f"x{ending}{packing}"
            made[ending + packing].write_bytes(pack(content.encode()))
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        made[encoding] = folder / f"{encoding}.jsonl.gz"
        made[encoding].write_bytes(gzip.compress(plain[".json"].encode(encoding)))
    made[".parquet"] = as_parquet(folder / "x.parquet", TEXTS)
    return made


def read(*paths: Path, **options: object) -> list[str]:
    units = plan_units(find_sources(paths), ReadOptions(**options))  # type: ignore[arg-type]
    return [value for unit in units for value in read_unit(unit)]


def test_every_kind_of_input_becomes_the_same_text(tool: Tool, tmp_path: Path) -> None:
    formatted = {}
    (tmp_path / "in").mkdir()
    for name, path in write_all_kinds(tmp_path / "in").items():
        out = tmp_path / f"out_{name}"
        options = ("--processes", 1, "--newlines", "join")
        said = tool("format", "--input", path, "--output", out, *options)
        assert said.code == 0, said.err
        formatted[name] = {name: data for name, data in contents(out).items() if name.endswith(".txt")}
    assert len(formatted) == 20
    assert all(content == formatted[".txt"] for content in formatted.values())
    assert b'The first one.\nIt has "two" sentences, and a comma.\n\nHere' in formatted[".txt"]["formatted_00000.txt"]


def test_units_are_bounded_and_lose_nothing_where_files_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{number} \u4f60 " + "word " * (number % 40) for number in range(2000)]
    (tmp_path / "a.txt").write_text("\n \t\n\n".join(texts), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": value}) for value in texts))
    (tmp_path / "c.tsv").write_text("n\ttext\n" + "".join(f"1\t{value}\n" for value in texts), encoding="utf-8")
    as_parquet(tmp_path / "d.parquet", list(texts), rows=100)
    (tmp_path / "e.txt").write_text("\n\n".join(texts), encoding="gb18030")
    monkeypatch.setattr(sources, "SMALLEST_UNIT", 3000)
    monkeypatch.setattr(sources, "LARGEST_UNIT", 3000)
    for path in sorted(tmp_path.iterdir()):
        options = ReadOptions(encoding="gb18030" if path.stem == "e" else "auto")
        units = plan_units(find_sources([path]), options)
        assert len(units) > 10
        assert max(unit.num_bytes for unit in units) < 20000
        assert [value.strip() for unit in units for value in read_unit(unit)] == [value.strip() for value in texts]


pieces_strategy = st.lists(
    st.sampled_from(["a", "\u4f60", " ", "\t", "\n", "\n\n", "\n \n", "\r\n", "bc d"]), max_size=40
).map("".join)


@settings(max_examples=300, deadline=None)
@given(content=pieces_strategy, chunk=st.integers(1, 9), stretch=st.integers(1, 30), lines=st.booleans())
def test_where_a_file_is_cut_changes_nothing(
    content: str, chunk: int, stretch: int, lines: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.txt"
    path.write_bytes(content.encode())
    (source,) = find_sources([path])
    wanted = [part.strip() for part in text._SEPARATOR.split(content) if part.strip()]
    if lines:
        wanted = [part for part in content.split("\n") if part]
    with pytest.MonkeyPatch.context() as small:
        small.setattr(compression, "CHUNK_BYTES", max(chunk, 4))
        small.setattr(stretches, "CHUNK_BYTES", chunk)
        ends = stretches.LINE_END if lines else stretches.BLANK_LINE_END
        parts = stretches.cut(source, ends, stretch, "auto")
        read_part = stretches.read_lines if lines else text.read_text_documents
        found = [value for part in parts for value in read_part(part, ReadOptions()) if value]
    assert found == wanted
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]


def test_documents_larger_than_the_limit_are_refused_and_those_below_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    giant = "word " * 2_000_000  # 10 MB
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": giant}).encode(), 1))
    (tmp_path / "b.csv").write_text(f"text\n{giant}\n")
    (tmp_path / "c.txt").write_text(giant)
    as_parquet(tmp_path / "d.parquet", [giant])
    for path in sorted(tmp_path.iterdir()):
        assert [value.strip() for value in read(path)] == [giant.strip()]
    for module in (stretches, text, tables):
        monkeypatch.setattr(module, "LARGEST_DOCUMENT", 9_000_000)
    monkeypatch.setattr("bert_pytorch.columnar.library.LARGEST_DOCUMENT", 9_000_000)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=rf"{path.name}.* characters, the most that one document may have"):
            read(path)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gb18030", "utf-16-le", "koi8-r", "shift_jis", "utf-8"])
def test_a_named_encoding_is_decoded_strictly(tmp_path: Path, encoding: str) -> None:
    value = {"gb18030": "\u4f60\u597d", "koi8-r": "\u0434\u0430", "shift_jis": "\u3042\u4e9c"}.get(
        encoding, "caf\u00e9"
    )
    (tmp_path / "a.txt").write_bytes(f"{value} one\n\n{value} two".encode(encoding))
    (tmp_path / "marked.jsonl").write_bytes(codecs.BOM_UTF8 + json.dumps({"text": value}).encode())
    assert read(tmp_path / "a.txt", encoding=encoding) == [f"{value} one", f"{value} two"]
    assert read(tmp_path / "marked.jsonl", encoding=encoding) == [value]


def test_text_in_another_encoding_is_refused_with_its_likely_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.txt"
    russian = (
        "\u041e\u043d \u0441\u043a\u0430\u0437\u0430\u043b, \u0447\u0442\u043e \u043f\u0440\u0438\u0434\u0451\u0442. "
    )
    path.write_bytes(russian.encode("cp1251") * 50)
    pytest.importorskip("charset_normalizer")
    with pytest.raises(InputError, match=r"byte 0 is 0xce, which is not UTF-8.*--encoding cp1251.*iconv -f CP1251"):
        read(path)
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    with pytest.raises(InputError, match=r"--encoding cp1252.*iconv"):
        read(path)
    path.write_bytes(b"fine \n" * 400_000 + b"\xff")
    with pytest.raises(InputError, match="byte 2400000 is 0xff"):
        read(path)
    path.write_bytes("caf\u00e9".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"byte 1 is NUL.*--encoding utf-16-le"):
        read(path)
    path.write_bytes("caf\u00e9".encode())
    assert read(path, encoding="latin-1") == ["caf\u00c3\u00a9"]
    assert "1 file(s) look like UTF-8 but are read as latin-1" in caplog.text
    path.write_bytes(b"\x81")
    with pytest.raises(InputError, match=r"byte 0 is 0x81, which is not CP1252"):
        read(path, encoding="cp1252")


GOOD_LINE = b'{"text": "The cat sat."}\n'
DAMAGED: list[tuple[str, bytes, str]] = [
    ("a.jsonl", GOOD_LINE * 3 + b'{"text": 1, "text": "x"}\n', 'line 4 has "text" twice'),
    ("a.jsonl", b'{"body": {"deep": "x"}}\n', 'line 1 has no "text", only body'),
    ("a.json", b'[{"text": "x"},\n{"text": "y"}]', r"line 1 is not JSON.*jq -c '\.\[\]'"),
    ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
    ("a.jsonl", GOOD_LINE + b'{"text": "a\0b"}', "byte 36 is NUL"),
    ("a.jsonl", GOOD_LINE + b'{"text": "\xed\xa0\x80"}', "byte 35 is 0xed, which is not UTF-8"),
    ("a.csv", b"id,body\n1,x\n", 'no column "text" in its header row, which has: id, body'),
    ("a.csv", b"text,text\n1,x\n", 'two columns "text"'),
    ("a.csv", b"id;text\n1;x\n", "which has: id;text"),
    ("a.csv", b'id,text\n1,"two\nlines"\n2,x,y\n', r"line 4: 3 field\(s\), wanted 2"),
    ("a.csv", b'id,text\n1,x\n2,"never closed\nmore\n', "line 4: not a row .* begins in line 3"),
    ("a.csv", b'id,text\n1,"x"y\n', "line 2: not a row"),
    ("a.tsv", b"id\ttext\n1\tx\n2\n", r"line 3: 1 field\(s\), wanted 2"),
    ("a.csv", b"id,text\n1,a\0b\n", "byte 11 is NUL"),
    ("a.txt", gzip.compress(b"text"), "its content is gzip, not plain text"),
    ("a.txt", b"PK\x03\x04....", "its content is ZIP, not plain text"),
    ("a.txt.gz", b"plain text", "not a gzip file, whatever its name says: its content is something else"),
    ("a.txt.bz2", gzip.compress(b"text"), "not a bzip2 file, whatever its name says: its content is gzip"),
    ("a.txt.gz", b"", "not a whole gzip file"),
    ("a.txt.gz", gzip.compress(b"text" * 999)[:-9], "not a whole gzip file"),
    ("a.txt.gz", gzip.compress(b"text")[:12] + b"\xff" * 20, "not a whole gzip file"),
    ("a.txt.bz2", bz2.compress(b"text" * 999)[:-9], "not a whole bzip2 file"),
    ("a.txt.bz2", bz2.compress(b"text")[:9] + b"\xff" * 20, "not a whole bzip2 file"),
    ("a.txt.zst", zst(b"text" * 9999)[:-3], "not a whole Zstandard file .it ends within a frame"),
    ("a.txt.zst", zst(b"text") + b"more", "cannot be unpacked"),
    ("a.parquet", b"PAR1" + bytes(99), "not a whole Parquet file"),
    ("a.parquet", b"PAR1" + b"\xff" * 99 + b"PAR1", "not a whole Parquet file"),
    ("a.parquet.gz", gzip.compress(b"PAR1"), "what kind of text is this"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED, ids=[f"{name} {said}" for name, _, said in DAMAGED])
def test_damaged_input_is_one_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){name}.*{message}"):
        read(tmp_path / name)


def test_what_a_frame_of_zstandard_asks_of_memory_is_bounded(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    ).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(packer.compress(b"text " * 999) + packer.flush())
    with pytest.raises(InputError, match=r"Windows up to 128 MiB are read"):
        read(tmp_path / "a.txt.zst")


def test_fields_inside_fields_and_null(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": {"b": "deep", "text": 1, "text": 2}, "text": null}\n{"a.b": "flat", "text": "x"}\n\n')
    assert read(path, text_field="a.b") == ["deep", "flat"]
    assert read(path) == ["", "x"]
    parquet = as_parquet(tmp_path / "a.parquet", ["x", None, "z"])
    assert read(parquet) == read(parquet, text_field="deep.body") == ["x", "", "z"]
    for name, said in (("nothing", 'no column "nothing", it has: id, text, deep.body'), ("id", 'column "id" is INT64')):
        with pytest.raises(InputError, match=said):
            read(parquet, text_field=name)


def test_what_is_input_in_a_folder(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a/z.jsonl.gz",
        "a/x.CSV",
        "notes.json",
        "c4.json.gz",
        ".hidden.txt",
        ".git/x.txt",
        "out/o.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    (tmp_path / "empty").mkdir()
    found = find_sources([tmp_path, tmp_path / "notes.json"], tmp_path / "out")
    assert [source.path.name for source in found] == ["x.CSV", "z.jsonl.gz", "b.txt", "c4.json.gz", "notes.json"]
    assert [source.alone for source in found] == [False, False, True, False, True]
    with pytest.raises(InputError, match=r"no input in this folder; wanted files ending in \.txt"):
        find_sources([tmp_path / "empty"])
    (tmp_path / "d.gz").write_bytes(b"x")
    (tmp_path / "e.txt.gz").write_bytes(b"x")
    (tmp_path / "f.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"(?s)e.txt.gz: not a gzip.*\n  - .*f.parquet: not a Parquet"):
        find_sources([tmp_path])


def test_quotes_in_tables_mean_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tn\n"open\t1\n"two\tthree"\t2\n')
    with pytest.raises(InputError, match="line 3: 3 field"):
        read(path)
    path.write_text('text\tn\n5" disk\t1\n"whole"\t2\n')
    assert read(path) == ['5" disk', '"whole"']
    assert read(path, quoting="double") == ['5" disk', "whole"]


def test_optional_libraries_are_named_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zst(b"text"))
    as_parquet(tmp_path / "a.parquet", ["x"])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(MissingDependencyError, match=r"pip install -r requirements-extras.txt"):
            read(path)


def test_the_hash_of_the_input_depends_on_bytes_and_their_division_among_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*texts: bytes) -> str:
        paths = [tmp_path / str(number) for number in range(len(texts))]
        for path, content in zip(paths, texts, strict=True):
            path.write_bytes(content)
        return hash_files(paths, PoolConfig(processes=2))

    assert len({hashed(b"ab", b"c"), hashed(b"a", b"bc"), hashed(b"abc"), hashed(b"abc", b""), hashed()}) == 5
    assert hashed(b"ab" * 100) == hashed(b"ab" * 100)
    monkeypatch.setattr(sources, "_HASH_STRETCH", 10)
    serial = hashed(b"ab" * 100)
    monkeypatch.setattr(sources, "_HASH_SERIALLY", 1)
    assert hashed(b"ab" * 100) == serial


def test_awkward_documents_survive_every_container(tmp_path: Path) -> None:
    texts = [*AWKWARD_DOCUMENTS.values(), "\ud83d half", "a\0b", "\ufeffmark"]
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps({"text": value}) + "\n" for value in texts))
    assert read(lines) == texts
    writable = [value for value in texts if (value and value.isprintable()) or "\n" in value]
    quoted = tmp_path / "a.csv"
    quoted.write_bytes(table(writable, ",", csv.QUOTE_ALL).encode())
    assert read(quoted) == writable


def test_a_damaged_second_stream_of_bzip2_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.txt.bz2"
    first, second = bz2.compress(b"one\n" * 5000), bz2.compress(b"two\n" * 5000)
    path.write_bytes(first + second)
    assert b"".join(read_chunks(path, "bz2")) == b"one\n" * 5000 + b"two\n" * 5000
    for damaged in (b"X" + second[1:], second[:-9]):
        path.write_bytes(first + damaged)
        with pytest.raises(InputError, match="not a whole bzip2 file"):
            list(read_chunks(path, "bz2"))


def test_a_small_parquet_file_of_one_large_repeated_text_takes_little_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (requirements-extras.txt)")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "repeated.parquet"
    text = "word " * 40_000
    parquet.write_table(pyarrow.table({"text": pyarrow.array([text] * 2000).dictionary_encode()}), path)
    assert path.stat().st_size < 100_000
    code = (
        "import sys, pathlib\n"
        "from bert_pytorch.corpus.sources import find_sources, plan_units, read_unit\n"
        "from bert_pytorch.corpus.inputs.stretches import ReadOptions\n"
        "units = plan_units(find_sources([pathlib.Path(sys.argv[1])]), ReadOptions())\n"
        "print(sum(1 for unit in units for text in read_unit(unit)))\n"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])\n"
    )
    said = run([sys.executable, "-c", code, str(path)])
    assert said.code == 0, said
    count, kib = map(int, said.stdout.split())
    assert count == 2000
    assert kib < 300_000, "the rows together are 400 MB"


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_parquet_without_a_dictionary_is_read(tmp_path: Path, encoding: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (requirements-extras.txt)")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    columns = pyarrow.table({"text": TEXTS})
    parquet.write_table(columns, path, use_dictionary=False, column_encoding={"text": encoding}, row_group_size=10)
    assert read(path) == TEXTS


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    paths = [tmp_path / "b.txt", tmp_path, tmp_path / "sub" / ".." / "a.txt"]
    (tmp_path / "sub").mkdir()
    assert [source.path.name for source in sources.find_sources(paths)] == ["b.txt", "a.txt"]
