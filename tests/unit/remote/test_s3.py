"""Reading from S3: a real server on this machine, hostile names, broken connections, changed objects."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from bert_pytorch.errors import InputError, MissingDependencyError
from bert_pytorch.remote.errors import NotThere, Refused, StartOver, TransferError, TransferInterrupted
from bert_pytorch.remote.s3 import list_s3, read_s3
from tests.support.s3_server import s3_server, use_s3
from tests.support.wire import Break, wire

pytest.importorskip("boto3")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def emptied_bucket(server: str) -> Iterator[Any]:
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        use_s3(patch, server)
        yield boto3.session.Session().resource("s3").Bucket("corpus")


@pytest.fixture
def bucket(server: str, emptied_bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket called `corpus`."""
    use_s3(monkeypatch, server)
    post(server, "reset")
    emptied_bucket.create()
    return emptied_bucket


def post(server: str, action: str, body: bytes = b"") -> None:
    request = Request(f"{server}/moto-api/{action}", body, {"Content-Type": "text/plain"}, method="POST")
    with urlopen(request) as answer:
        assert answer.status == 200


def fill(bucket: Any, names: list[str]) -> None:
    for name in names:
        bucket.put_object(Key=name, Body=name.encode())


def resumed(url: str, tries: int) -> tuple[bytes, list[int]]:
    """Fetch as a caller that goes on after each break; return the bytes and where each try ended."""
    got, etag, ends = b"", None, []
    for _ in range(tries):
        try:
            info, chunks = read_s3(url, len(got), etag)
            etag = info.etag
            for chunk in chunks:
                got += chunk
        except TransferInterrupted:
            ends.append(len(got))
            continue
        assert info.size == len(got)
        return got, ends
    raise AssertionError(f"not whole after {tries} tries: {ends}")


def test_listing_takes_all_pages_of_what_is_below_the_prefix(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    below = [f"data/part {i % 3}/{i:04d}.txt" for i in range(120)]
    odd = ["data/ü ½ 語 🙂.txt", "data/a+b&c=d%20e?f#g;h.txt", "data/'q\" <x>.txt", "data/.hidden", "data/empty.txt"]
    fill(bucket, [*below, *odd[:-1], "data2/other.txt", "data.txt", "dat"])
    bucket.put_object(Key="data/", Body=b"")
    bucket.put_object(Key="data/part 0/", Body=b"")
    bucket.put_object(Key=odd[-1], Body=b"")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "25")  # S3's own pages hold 1000
    assert bucket.meta.client.list_objects_v2(Bucket="corpus")["IsTruncated"]

    for prefix in ("data", "data/"):
        files = list_s3(f"s3://corpus/{prefix}")
        assert [file.path for file in files] == [key.removeprefix("data/") for key in sorted([*below, *odd])]
    for file in (file for file in files if f"data/{file.path}" in odd or file.path.endswith("0.txt")):
        info, chunks = read_s3(file.urls[0])
        content = b"".join(chunks)
        assert content == (b"" if file.path == "empty.txt" else f"data/{file.path}".encode())
        assert len(content) == info.size == file.size
    assert len(list_s3("s3://corpus")) == len(below) + len(odd) + 3
    assert [file.path for file in list_s3("s3://corpus/data/part 1/0001.txt")] == ["0001.txt"]
    assert [file.path for file in list_s3("s3://corpus/dat")] == ["dat"]


HOSTILE = {
    "../../etc/passwd": "climbs out",
    "/etc/passwd": "is absolute",
    "a//b": "empty part",
    "a/./b": "empty part",
    "..\\b": "backslash",
    "a\tb": "control",
    "é" * 128: "more than 255 bytes",
    "ok.txt/below": "'ok.txt', which is a file",
    ".lock": "uses itself",
    "folder/": "empty part",
}


def test_names_that_would_leave_the_folder_are_refused_by_name(bucket: Any) -> None:
    for number, (name, why) in enumerate(HOSTILE.items()):
        fill(bucket, [f"{number}/ok.txt", f"{number}/{name}"])
        with pytest.raises(InputError) as refused:
            list_s3(f"s3://corpus/{number}")
        assert repr(name) in str(refused.value)
        assert why in str(refused.value)
        assert "1 of 2" in str(refused.value)


def test_reading_begins_where_it_is_told(bucket: Any) -> None:
    content = random.Random(1).randbytes(3 << 20)
    bucket.put_object(Key="a", Body=content)
    whole, chunks = read_s3("s3://corpus/a")
    assert max(len(chunk) for chunk in chunks) <= 1 << 20
    for start in (0, 1, (1 << 20) + 7, len(content) - 1, len(content)):
        info, chunks = read_s3("s3://corpus/a", start, whole.etag)
        assert info == whole
        assert b"".join(chunks) == content[start:]
    with pytest.raises(StartOver, match=f"has {len(content)} bytes"):
        read_s3("s3://corpus/a", len(content) + 1, whole.etag)


def test_an_object_that_changed_is_not_continued(bucket: Any) -> None:
    bucket.put_object(Key="a", Body=b"first" * 10)
    info, _ = read_s3("s3://corpus/a")
    bucket.put_object(Key="a", Body=b"other" * 10)
    for start in (0, 5, 50):
        with pytest.raises(StartOver, match="changed"):
            read_s3("s3://corpus/a", start, info.etag)


def test_a_breaking_connection_is_resumed_byte_for_byte(
    bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(2).randbytes(5_000_000)
    bucket.put_object(Key="a", Body=content)
    cuts = [1_500_000, 400_000, 2_000_000]
    with wire(server, map(Break, cuts)) as line:
        use_s3(monkeypatch, line.url)
        got, ends = resumed("s3://corpus/a", 5)
    assert got == content
    assert len(ends) == 3
    assert ends == sorted(ends)
    assert 1 << 20 <= ends[0] <= ends[-1] <= sum(cuts)


def test_a_line_that_stalls_is_left_in_time_and_little_that_came_is_lost(
    bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(3).randbytes(500_000)
    bucket.put_object(Key="a", Body=content)
    with wire(server, [Break(300_000, stalls=True)]) as line:
        use_s3(monkeypatch, line.url)
        info, chunks = read_s3("s3://corpus/a", timeout_seconds=0.3)
        received: list[bytes] = []
        with pytest.raises(TransferInterrupted, match="no answer in time"):
            received.extend(chunks)
        got = b"".join(received)
        assert 300_000 - 2 * (1 << 16) < len(got) < 300_000
        _, rest = read_s3("s3://corpus/a", len(got), info.etag, timeout_seconds=0.3)
        assert got + b"".join(rest) == content


def test_bytes_that_changed_on_the_way_are_not_taken(bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_object(Key="a", Body=b"good " * 500_000)
    with wire(server, spoil=(b"good", b"gold")) as line:
        use_s3(monkeypatch, line.url)
        info, chunks = read_s3("s3://corpus/a")
        with pytest.raises(StartOver, match="fail S3's checksum"):
            list(chunks)
    assert info.size == 2_500_000


def test_a_server_that_is_away_is_said_in_one_message(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, "http://127.0.0.1:9")
    for work in (lambda: list_s3("s3://corpus/x"), lambda: read_s3("s3://corpus/x")):
        with pytest.raises(TransferInterrupted, match="AWS_ENDPOINT_URL"):
            work()
    use_s3(monkeypatch, "no address")
    with pytest.raises(TransferError, match="no address"):
        list_s3("s3://corpus/x")


def test_what_is_not_there_is_named(bucket: Any) -> None:
    fill(bucket, ["x/a"])
    with pytest.raises(NotThere, match="no bucket 'nowhere'"):
        list_s3("s3://nowhere/x")
    with pytest.raises(NotThere, match="no bucket 'nowhere'"):
        read_s3("s3://nowhere/x")
    with pytest.raises(NotThere, match="no such object"):
        read_s3("s3://corpus/x")
    with pytest.raises(NotThere, match="no files there"):
        list_s3("s3://corpus/y")
    for url in ("s3://", "s3:///x", "corpus/x", "https://corpus/x", "s3://UPPER case/x"):
        with pytest.raises(InputError):
            list_s3(url)
    with pytest.raises(InputError, match="names a bucket"):
        read_s3("s3://corpus")


def test_public_objects_need_no_credentials_and_refusals_say_who_asked(
    bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="public", Body=b"open", ACL="public-read")
    bucket.put_object(Key="private", Body=b"closed", ACL="private")
    use_s3(monkeypatch, server, credentials=False)
    assert b"".join(read_s3("s3://corpus/public")[1]) == b"open"
    with pytest.raises(Refused, match=r"without credentials \(none were found\).*AWS_PROFILE"):
        read_s3("s3://corpus/private")

    use_s3(monkeypatch, server)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    post(server, "reset-auth", b"0")
    try:
        for work in (lambda: list_s3("s3://corpus/"), lambda: read_s3("s3://corpus/public")):
            with pytest.raises(
                Refused, match=r"with the credentials found; S3 answers 403 InvalidAccessKeyId"
            ) as refused:
                work()
            assert "hush" not in str(refused.value)
    finally:
        post(server, "reset-auth", b"inf")


def test_without_boto3_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingDependencyError, match=r"requirements-extras\.txt"):
        list_s3("s3://corpus/x")


_READER = r"""
import hashlib, re
from bert_pytorch.remote.s3 import read_s3
def peak():  # not ru_maxrss, which begins with the parent's
    return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) // 1024
b"".join(read_s3("s3://corpus/small")[1])
before, digest = peak(), hashlib.sha256()
for chunk in read_s3("s3://corpus/large")[1]: digest.update(chunk)
print(digest.hexdigest(), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_object(bucket: Any) -> None:
    content = random.Random(3).randbytes(1 << 20) * 100
    bucket.put_object(Key="small", Body=b"small")
    bucket.put_object(Key="large", Body=content)
    ran = subprocess.run([sys.executable, "-c", _READER], capture_output=True, text=True, check=True)
    digest, mebibytes = ran.stdout.split()
    assert digest == hashlib.sha256(content).hexdigest()
    assert int(mebibytes) < 20
