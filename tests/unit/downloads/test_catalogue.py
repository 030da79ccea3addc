"""Every source of the catalogue, downloaded from a server on this machine as a person downloads it."""

import bz2
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.corpus.__main__ import main
from bert_pytorch.downloads import benchmarks, books, weights
from bert_pytorch.downloads.catalogue import SOURCES
from bert_pytorch.downloads.source import DownloadConfig
from tests.support.http_server import Fault, FileServer, file_server
from tests.support.hub_server import hub_server
from tests.support.s3_server import s3_server, use_s3

DUMP = bz2.compress(b"<mediawiki/>")


@pytest.fixture(autouse=True)
def local_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return target.getvalue()


def download(source: str, folder: Path, *words: object) -> int:
    return main(["download", source, "--output", str(folder), "--retries", "0", *map(str, words)])


def found(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    inside = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in sorted(inside.items()) if not name.startswith(".")}


def add_dump(server: FileServer, wiki: str, date: str, content: bytes = DUMP) -> None:
    name = f"{wiki}-{date}-pages-articles.xml.bz2"
    server.add(f"{wiki}/{date}/{name}", content)
    sums = (
        f"{'0' * 40}  {wiki}-{date}-pages-articles-multistream.xml.bz2\n{hashlib.sha1(content).hexdigest()}  {name}\n"
    )
    for place in (date, "latest"):
        server.add(f"{wiki}/{place}/{wiki}-{place}-sha1sums.txt", sums.encode())


def wikipedia(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    add_dump(server, "zh_yuewiki", "20261101")
    assert download("wikipedia", folder, "--mirror", server.url, "--language", "zh-yue") == 0
    return {"zh_yuewiki-20261101-pages-articles.xml.bz2": DUMP}


def bookscorpus(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    archive = tarred({"books1/epubtxt/one.txt": b"Once.", "books1/2020-08-27-epub_urls.txt": b"http://\n"})
    server.add("books1.tar.gz", archive)
    known = books._Edition(("https://elsewhere.invalid/x/books1.tar.gz",), len(archive), sha256(archive))
    patched.setitem(books._EDITIONS, "books1", known)
    assert download("bookscorpus", folder, "--mirror", server.url) == 0
    return {
        "books1.tar.gz": archive,
        "books1/epubtxt/one.txt": b"Once.",
        "books1/2020-08-27-epub_urls.list": b"http://\n",
    }


def gutenberg(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    server.add("cache/epub/84/pg84.txt", b"Frankenstein")
    page = '<a href="a/b.txt">b</a><a href="../out.txt"><a href="https://other.invalid/c.txt"><a href="d.html"><a href="http://[x/e.txt">'
    page += '<a href="%C3%BC%201.txt?C=N;O=D">'
    server.add("mirror/index.html", page.encode())
    server.add("mirror/a/b.txt", b"b")
    server.add("mirror/%C3%BC%201.txt", b"u")
    listed = folder.parent / "list"
    listed.write_text(f"# mine\n{server.add('listed/e.txt', b'e')}\n\n")
    index = ["--index", f"{server.url}/mirror/index.html", "--list_file", listed]
    assert download("gutenberg", folder, "--mirror", server.url, "--ids", 84, *index) == 0
    return {"pg84.txt": b"Frankenstein", "a/b.txt": b"b", "ü 1.txt": b"u", "e.txt": b"e"}


def c4(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    shards = {number: gzip.compress(b'{"text": "%d"}\n' % number) for number in (0, 1, 1023)}
    for number, content in shards.items():
        server.add(f"en/c4-train.{number:05d}-of-01024.json.gz", content)
    assert download("c4", folder, "--mirror", server.url, "--shards", "0-1,1023") == 0
    return {f"en/c4-train.{number:05d}-of-01024.jsonl.gz": content for number, content in shards.items()}


def squad(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    content = {f"v{version}/{part}-v{version}.json": b"{}" for version in ("1.1", "2.0") for part in ("train", "dev")}
    for version, files in benchmarks._SQUAD.items():
        for name in files:
            server.add(name, b"{}")
        patched.setitem(benchmarks._SQUAD, version, dict.fromkeys(files, (2, sha256(b"{}"))))
    assert download("squad", folder, "--mirror", server.url) == 0
    return content


def glue(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    expected = {}
    for task, file in benchmarks._GLUE.items():
        archive = zipped({f"{task}/train.tsv": task.encode(), "__MACOSX/._x": b""})
        server.add(f"glue/data/{file.place}", archive)
        patched.setitem(benchmarks._GLUE, task, file._replace(size=len(archive), sha256=sha256(archive)))
        expected |= {f"{task}.zip": archive, f"{task}/train.tsv": task.encode()}
    head = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    plain = {
        "MRPC/msr_paraphrase_train.txt": f'{head}1\t7\t8\tA "b.\tC\r\n0\t9\t10\tD\té\r\n'.encode(),
        "MRPC/msr_paraphrase_test.txt": f"{head}1\t1\t2\tE\tF\r\n".encode(),
        "MRPC/dev_ids.tsv": b"9\t10\n",
        "diagnostic/diagnostic.tsv": b"index\n",
    }
    for task, files in benchmarks._GLUE_PLAIN.items():
        local = {}
        for path, file in files.items():
            server.add(file.place, plain[path])
            local[path] = file._replace(size=len(plain[path]), sha256=sha256(plain[path]))
        patched.setitem(benchmarks._GLUE_PLAIN, task, local)
    assert download("glue", folder, "--mirror", server.url) == 0
    made = {
        "MRPC/train.tsv": b'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA "b.\tC\n',
        "MRPC/dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t9\t10\tD\té\n".encode(),
        "MRPC/test.tsv": b"index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tE\tF\n",
    }
    return expected | plain | made


def google_bert(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    expected = {}
    for name, (when, _) in list(weights._MODELS.items()):
        archive = zipped({f"{name}/vocab.txt": name.encode(), f"{name}/bert_config.json": b"{}"})
        server.add(f"{when}/{name}.zip", archive)
        patched.setitem(weights._MODELS, name, (when, {"vocab.txt": sha256(name.encode())}))
        unpacked = {f"{name}/vocab.txt": name.encode(), f"{name}/bert_config.json": b"{}"}
        expected |= {f"{name}.zip": archive, **unpacked}
    assert len(weights._MODELS) == 9 + 23
    assert download("google_bert", folder, "--mirror", server.url, "--models", *weights._MODELS) == 0
    return expected


def url(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    archive = zipped({"a.txt": b"a"})
    addresses = [f"{server.url}/gone.zip", server.add("my.zip", archive)]
    checksum = f"sha256:{sha256(archive)}"
    assert download("url", folder, "--url", *addresses, "--path", "x/my.zip", "--checksum", checksum, "--unpack") == 0
    return {"x/my.zip": archive, "x/my/a.txt": b"a"}


def s3(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    import boto3

    with s3_server() as endpoint:
        use_s3(patched, endpoint)
        bucket = boto3.session.Session().resource("s3").Bucket("corpus")
        bucket.create()
        for key in ("texts/a.txt", "texts/b/c.txt", "other/d.txt"):
            bucket.put_object(Key=key, Body=key.encode())
        assert download("s3", folder, "--url", "s3://corpus/texts") == 0
    return {"a.txt": b"texts/a.txt", "b/c.txt": b"texts/b/c.txt"}


def huggingface(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    content = b"parquet " * 20
    with hub_server() as hub:
        patched.setenv("HF_ENDPOINT", "https://elsewhere.invalid")
        hub.add("datasets", "o/d", {"main": {"data/train-00000.parquet": content, "README.md": b"x"}})
        assert download("huggingface", folder, "--name", "o/d", "--mirror", hub.endpoint) == 0
    return {"data/train-00000.parquet": content}


def huggingface_bert(server: FileServer, folder: Path, patched: pytest.MonkeyPatch) -> dict[str, bytes]:
    files = {"config.json": b"{}", "vocab.txt": b"[PAD]\n", "model.safetensors": b"weights " * 20}
    with hub_server() as hub:
        hub.add("models", "google-bert/bert-base-uncased", {"main": files | {"rust_model.ot": b"no"}})
        assert download("huggingface_bert", folder, "--mirror", hub.endpoint) == 0
        lighter = folder.parent / "lighter"
        assert download("huggingface_bert", lighter, "--mirror", hub.endpoint, "--no-weights") == 0
        assert sorted(found(lighter)) == ["config.json", "vocab.txt"]
    return files


CASES: dict[str, Callable[[FileServer, Path, pytest.MonkeyPatch], dict[str, bytes]]] = {
    case.__name__: case
    for case in (
        *(wikipedia, bookscorpus, gutenberg, c4, huggingface, s3, url, squad, glue),
        *(google_bert, huggingface_bert),
    )
}


def test_no_source_goes_untested() -> None:
    assert list(CASES) == [name for name in SOURCES if name in CASES]
    assert set(CASES) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_downloads_from_a_server_here(
    name: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "s3":
        pytest.importorskip("boto3")
        pytest.importorskip("moto")
    expected = CASES[name](server, tmp_path / "out put", monkeypatch)
    assert found(tmp_path / "out put") == dict(sorted(expected.items()))


def test_a_second_start_fetches_nothing_and_needs_no_network(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wikipedia", "glue"):
        CASES[name](server, tmp_path / name, monkeypatch)
    sent = server.bytes_sent
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.is_file()}
    add_dump(server, "zh_yuewiki", "20261201", b"newer")
    (tmp_path / "glue/MNLI.zip").unlink()  # its folder is there
    monkeypatch.setattr(server, "files", {})
    assert download("wikipedia", tmp_path / "wikipedia", "--mirror", server.url, "--language", "zh-yue") == 0
    assert download("glue", tmp_path / "glue", "--mirror", server.url) == 0
    assert server.bytes_sent == sent
    for path in (tmp_path / "glue").glob("M*/*"):
        assert path.stat().st_mtime_ns == times[path]


def test_a_newer_wikipedia_is_fetched_when_asked_for(server: FileServer, tmp_path: Path) -> None:
    words = ["--mirror", server.url, "--language", "simple"]
    add_dump(server, "simplewiki", "20261101")
    assert download("wikipedia", tmp_path, *words) == 0
    add_dump(server, "simplewiki", "20261201", b"newer")
    assert download("wikipedia", tmp_path, *words, "--date", 20261101) == 0
    assert download("wikipedia", tmp_path, *words, "--overwrite") == 0
    assert download("wikipedia", tmp_path, *words) == 0  # keeps to the one it found
    assert sorted(found(tmp_path)) == [f"simplewiki-2026{m}01-pages-articles.xml.bz2" for m in (11, 12)]


def test_a_wikipedia_dump_that_does_not_match_its_checksum_is_refused_on_every_mirror(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_dump(server, "enwiki", "20261101")
    server.files["/enwiki/20261101/enwiki-20261101-pages-articles.xml.bz2"].content = b"x" * len(DUMP)
    assert download("wikipedia", tmp_path, "--mirror", f"{server.url}/gone", server.url) == 1
    said = capsys.readouterr().err
    assert "its SHA-1 is" in said
    assert "no such file" in said
    assert found(tmp_path) == {}


def test_without_a_network_wikipedia_says_what_to_fetch_and_takes_it(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download("wikipedia", tmp_path, "--mirror", server.url) == 1
    said = capsys.readouterr().err
    address, _, place = said.partition("on a machine that can,\n  ")[2].partition("\nput it here:\n  ")
    assert address == f"{server.url}/enwiki/latest/enwiki-latest-pages-articles.xml.bz2"
    Path(place.splitlines()[0]).write_bytes(DUMP)
    assert download("wikipedia", tmp_path, "--mirror", server.url) == 0


def test_a_hostile_archive_leaves_no_folder(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.add("a.zip", zipped({"../../evil.txt": b"x"}))
    assert download("url", tmp_path / "o", "--url", address, "--unpack") == 1
    assert "climbs out" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil*"))
    assert sorted(found(tmp_path / "o")) == []  # the next start fetches anew


def test_overwrite_fetches_and_unpacks_anew(server: FileServer, tmp_path: Path) -> None:
    words = ["--url", server.add("a.zip", zipped({"a.txt": b"1"})), "--unpack"]
    assert download("url", tmp_path, *words) == 0
    server.add("a.zip", zipped({"b.txt": b"2"}), faults=[Fault(drop_after=5)], etag='"2"')
    assert download("url", tmp_path, *words, "--overwrite") == 1
    assert found(tmp_path)["a/a.txt"] == b"1"  # what was there stays until the new one is
    assert download("url", tmp_path, *words, "--overwrite") == 0
    assert sorted(found(tmp_path)) == ["a.zip", "a/b.txt"]


def test_a_bad_archive_harms_no_folder_and_is_fetched_anew(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--url", server.add("a.zip", zipped({"a.txt": b"1"})), "--unpack"]
    assert download("url", tmp_path, *words) == 0
    server.add("a.zip", b"<html>")
    assert download("url", tmp_path, *words, "--overwrite") == 1
    assert "damaged" in capsys.readouterr().err
    assert found(tmp_path) == {"a/a.txt": b"1"}
    server.add("a.zip", zipped({"b.txt": b"2"}))
    assert download("url", tmp_path, *words, "--overwrite") == 0
    assert sorted(found(tmp_path)) == ["a.zip", "a/b.txt"]
    (tmp_path / "b.zip").write_bytes(b"put here by a person")
    assert download("url", tmp_path, *words, "--path", "b.zip") == 1
    assert (tmp_path / "b.zip").exists()


def test_only_the_folder_of_this_archive_counts_as_unpacked(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--url", server.add("a.zip", zipped({"a.txt": b"1"})), "--unpack"]
    other = ["--url", server.add("other/a.zip", zipped({"b.txt": b"2"})), "--unpack"]
    (tmp_path / "a").mkdir()
    assert download("url", tmp_path, *words) == 1
    assert f"{tmp_path / 'a'}: no record" in (said := capsys.readouterr().err)
    assert "--overwrite" in said
    assert server.bytes_sent == 0
    assert download("url", tmp_path, *words, "--overwrite") == 0
    (tmp_path / "a.zip").unlink()
    assert download("url", tmp_path, *words) == 0
    assert not (tmp_path / "a.zip").exists()
    assert download("url", tmp_path, *other) == 1
    assert "no record" in capsys.readouterr().err
    known = ["--checksum", f"sha256:{sha256(server.files['/a.zip'].content).upper()}"]
    assert download("url", tmp_path, *other, "--path", "a.zip", *known) == 0  # the same archive, from wherever
    assert found(tmp_path) == {"a/a.txt": b"1"}


@pytest.mark.parametrize("what", ["file", "dangling link", "link to a folder"])
def test_what_stands_in_the_folders_place_is_told_before_anything_is_fetched(
    what: str, server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    if what == "file":
        (tmp_path / "a").write_bytes(b"")
    else:
        (tmp_path / "a").symlink_to(tmp_path / ("nowhere" if what == "dangling link" else "elsewhere"))
    address = server.add("a.zip", zipped({"a.txt": b"1"}))
    assert download("url", tmp_path, "--url", address, "--unpack", "--overwrite") == 1
    assert (said := capsys.readouterr().err).count("error:") == 1
    assert f"{tmp_path / 'a'}: is a {what.split()[-1] if what == 'file' else 'link'}, where" in said
    assert server.bytes_sent == 0


def test_what_a_killed_start_was_unpacking_is_removed_and_what_it_was_fetching_kept(
    server: FileServer, tmp_path: Path
) -> None:
    address = server.add("a.zip", zipped({"a.txt": b"1"}), faults=[Fault(drop_after=20)])
    words = ["--url", address, "--unpack", "--path", "x/a.zip"]
    assert download("url", tmp_path, *words) == 1
    (tmp_path / "x/.partial-killed/unpacked").mkdir(parents=True)
    assert download("url", tmp_path, *words) == 0
    assert not (tmp_path / "x/.partial-killed").exists()
    assert "Range" in server.requests[-1].headers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a source first: wikipedia"),
        (["wikpedia"], "did you mean wikipedia?"),
        (["wikipedia"], "--output is missing"),
        (["wikipedia", "--output", "x", "--language", "../x"], "--language: found '../x'"),
        (["wikipedia", "--output", "x", "--date", "2026"], "wanted latest or a date"),
        (["wikipedia", "--base_url", "x"], "use --mirror"),
        (["c4", "--output", "x", "--shards", "0-1024"], "wanted numbers from 0 to 1023"),
        (["c4", "--output", "x", "--shards", "3-1"], "--shards: found '3-1'"),
        (["gutenberg", "--output", "x"], "name books: --ids"),
        (["google_bert", "--output", "x", "--models", "bert"], "--models: found bert, wanted some of"),
        (["url", "--output", "x"], "--url is missing"),
        (["url", "--output", "x", "--url", "https://a/"], "--path is missing"),
        (["url", "--output", "x", "--url", "https://a/b", "--checksum", "1"], "--checksum: found '1'"),
        (["url", "--output", "x", "--url", "https://a/b", "--unpack"], "does not end in .zip"),
        (["url", "--output", "x", "--url", "http://[x/f.txt"], "--url: found 'http://[x/f.txt', wanted an address"),
        (["gutenberg", "--output", "x", "--index", "http://[x/"], "--index: found 'http://[x/', wanted an address"),
        (["url", "--output", "x", "--url", "http://h/.zip", "--unpack", "--overwrite"], "--unpack: the folder ''"),
        (["url", "--output", "x", "--url", "http://h/a/..zip", "--unpack"], "--unpack: the folder '.'"),
        (
            ["url", "--output", "x", "--url", "http://h/a", "--path", ".downloads.tgz", "--unpack"],
            "program uses itself",
        ),
        (["glue", "--output", "x", "--tasks", "Cola"], "--tasks: found 'Cola'"),
        (["s3", "--output", "x"], "--url is missing"),
        (["huggingface", "--output", "x"], "--name is missing"),
        (["bookscorpus", "--output", "x", "--any_archive"], "name its place with --mirror"),
    ],
)
def test_wrong_calls_get_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert message in said


def test_without_a_network_every_list_says_how_to_provide_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download("gutenberg", tmp_path, "--index", "http://127.0.0.1:9/books/") == 1
    said = capsys.readouterr().err
    assert "corpus format --input DIR" in said
    assert "--list_file" in said
    pytest.importorskip("boto3")
    use_s3(monkeypatch, "http://127.0.0.1:9")
    assert download("s3", tmp_path, "--url", "s3://corpus/texts") == 1
    assert "`aws s3 sync s3://corpus/texts DIR`" in capsys.readouterr().err


def test_a_list_of_books_that_is_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_bytes("http://h/ü.txt".encode("latin-1"))
    assert download("gutenberg", tmp_path, "--list_file", tmp_path / "list") == 1
    assert f"{tmp_path / 'list'}: not UTF-8 at byte 9" in capsys.readouterr().err


def test_the_table_lists_every_source_with_a_command_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources"]) == 0
    table = capsys.readouterr().out
    for source in SOURCES.values():
        for text in (source.what, source.licence, source.size, f"download {source.name} --output DIR {source.options}"):
            assert text in table
        parse_settings(source.settings, ["--output", "DIR", *source.options.split()], program="p", description="")


def test_the_addresses_of_the_catalogue_are_whole_and_stay_on_https() -> None:
    listed = {"s3", "huggingface", "huggingface_bert", "url", "wikipedia"}  # these ask or are told
    chosen = {"gutenberg": {"ids": (84,)}, "c4": {"shards": "0-1023"}, "google_bert": {"models": [*weights._MODELS]}}
    for name in set(SOURCES) - listed:
        source = SOURCES[name]
        config = source.settings(output=Path("o"), **chosen.get(name, {})).checked("test")
        assert isinstance(config, DownloadConfig)
        files = [item.file for item in source.plan(config)]
        assert len({file.path for file in files}) == len(files)
        for file in files:
            for address in file.urls:
                parts = urlsplit(address)
                assert (parts.scheme, bool(parts.hostname), "//" in parts.path) == ("https", True, False), address
            assert file.checksum is None or len(file.checksum) == len("sha256:") + 64
