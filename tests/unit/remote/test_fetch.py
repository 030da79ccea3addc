"""Fetching files from a real server that drops, changes, refuses and lies."""

import hashlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.errors import InputError, explain_os_error
from bert_pytorch.files import exclusive_lock, remove_partial_files
from bert_pytorch.remote import fetch as fetching
from bert_pytorch.remote import http
from bert_pytorch.remote.errors import NotThere, Refused, StartOver, TransferError, TransferInterrupted
from bert_pytorch.remote.fetch import FetchOptions, fetch, fetch_all
from bert_pytorch.remote.files import RemoteFile, SecretHeader
from bert_pytorch.remote.http import read_http, read_text
from bert_pytorch.remote.http_errors import show_url
from bert_pytorch.remote.json_api import get_json
from bert_pytorch.remote.paths import PARTS_FOLDER
from tests.support.data import REPOSITORY
from tests.support.http_server import PIECE, Fault, FileServer, file_server

CONTENT = random.Random(1).randbytes(5 * PIECE + 123)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


def options(pauses: list[float] | None = None, **how: object) -> FetchOptions:
    sleep = (lambda seconds: None) if pauses is None else pauses.append
    return FetchOptions(sleep=sleep, jitter=random.Random(1), timeout_seconds=5)._replace(**how)


def left_over(folder: Path) -> list[Path]:
    return list((folder / PARTS_FOLDER).glob("*")) if (folder / PARTS_FOLDER).exists() else []


def test_a_dropped_connection_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    drops = [Fault(drop_after=2 * PIECE), Fault(status=503), Fault(drop_after=PIECE)]
    url = server.add("a", CONTENT, faults=drops)
    pauses: list[float] = []
    path = fetch(RemoteFile((url,), "deep/er/a.bin", len(CONTENT), SHA), tmp_path, options(pauses))
    assert path == tmp_path / "deep/er/a.bin"
    assert path.read_bytes() == CONTENT
    assert [request.headers.get("Range") for request in server.requests] == [
        None,
        *[f"bytes={2 * PIECE}-"] * 2,
        f"bytes={3 * PIECE}-",
    ]
    assert server.bytes_sent == len(CONTENT)  # no byte twice
    assert 0.5 <= pauses[0] <= 1.5 <= pauses[1] + 0.5  # the second one without news is longer
    assert left_over(tmp_path) == []
    assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


@given(
    faults=st.lists(
        st.one_of(
            st.integers(0, 6 * PIECE).map(lambda after: Fault(drop_after=after)),
            st.sampled_from([429, 500, 503]).map(lambda status: Fault(status=status)),
        ),
        max_size=5,
    ),
    ranges=st.booleans(),
    etag=st.sampled_from([None, '"strong"', 'W/"weak"']),
    length=st.booleans(),
    checksum=st.sampled_from([None, SHA]),
    size=st.sampled_from([None, len(CONTENT)]),
)
def test_whatever_breaks_the_file_comes_out_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[Fault],
    ranges: bool,
    etag: str | None,
    length: bool,
    checksum: str | None,
    size: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("fetched")
    with file_server() as server:
        url = server.add("a", CONTENT, faults=list(faults), ranges=ranges, etag=etag, length=length)
        try:
            path = fetch(RemoteFile((url,), "a", size, checksum), folder, options())
        except TransferError:
            assert not (folder / "a").exists()
            assert not (ranges and length)  # such a server's file always comes, for all its faults
        else:
            told = length or checksum or size  # a server that says no length cannot be caught cutting the file
            assert path.read_bytes() == CONTENT if told else CONTENT.startswith(path.read_bytes())


def test_a_file_that_changes_between_tries_is_begun_anew(server: FileServer, tmp_path: Path) -> None:
    for heeds in (True, False):  # a server may ignore If-Range and say the new ETag only
        server.add("a", b"old" * PIECE, faults=[Fault(drop_after=PIECE)], etag='"old"')
        file = RemoteFile((f"{server.url}/a",), f"{heeds}.bin")
        with pytest.raises(TransferError, match="have arrived and are kept"):
            fetch(file, tmp_path, options(retries=0))
        server.add("a", CONTENT, etag='"new"', heeds_if_range=heeds)
        assert fetch(file, tmp_path, options()).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_and_the_next_mirror_is_asked(server: FileServer, tmp_path: Path) -> None:
    bad = server.add("bad", CONTENT[:-1] + b"?")
    good = server.add("good", CONTENT)
    with pytest.raises(TransferError, match=r"its SHA-256 is [0-9a-f]{64}, wanted") as raised:
        fetch(RemoteFile((bad,), "a", None, SHA), tmp_path, options())
    assert str(tmp_path / "a") in str(raised.value)  # where to put it by hand
    assert list(tmp_path.rglob("*")) == [tmp_path / ".lock", tmp_path / PARTS_FOLDER]
    assert [request.path for request in server.requests] == ["/bad"]  # the same bytes are not fetched again
    gone = f"{server.url}/gone"
    path = fetch(RemoteFile((gone, bad, good), "a", None, SHA), tmp_path, options())
    assert path.read_bytes() == CONTENT
    assert [request.path for request in server.requests[1:]] == ["/gone", "/bad", "/good"]


def test_mixed_pieces_that_fail_the_checksum_are_fetched_once_more_in_one_piece(
    server: FileServer, tmp_path: Path
) -> None:
    first = server.add("first", bytes(len(CONTENT)), faults=[Fault(drop_after=PIECE), Fault(status=404)])
    second = server.add("second", CONTENT)
    assert fetch(RemoteFile((first, second), "a", None, SHA), tmp_path, options()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (404, NotThere, "there is no such file"),
        (403, Refused, "access denied"),
        (418, TransferError, "answers 418"),
        (503, TransferInterrupted, "answers 503"),
    ],
)
def test_refusals_are_told_apart(server: FileServer, status: int, kind: type[Exception], told: str) -> None:
    url = server.add("a", CONTENT, faults=[Fault(status=status)])
    with pytest.raises(kind, match=told) as raised:
        read_http(url)
    assert type(raised.value) is kind


def test_only_what_can_mend_is_tried_again_and_no_longer_than_told(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="no such file") as raised:
        fetch(RemoteFile((f"{server.url}/nothing",), "a"), tmp_path, options())
    assert len(server.requests) == 1
    assert f"{server.url}/nothing\nput it here:\n  {tmp_path / 'a'}" in str(raised.value)

    pauses: list[float] = []
    busy = Fault(status=429, headers={"Retry-After": "17"})
    url = server.add("busy", CONTENT, faults=[busy] * 9)
    with pytest.raises(TransferError, match="429"):
        fetch(RemoteFile((url,), "a"), tmp_path, options(pauses, retries=3))
    assert len(server.requests) == 1 + 4
    assert pauses == [17, 17, 17]
    server.files["/busy"].faults = [Fault(status=503, headers={"Retry-After": "86400"})]
    with pytest.raises(TransferError, match="503"):
        fetch(RemoteFile((url,), "a"), tmp_path, options(pauses))
    assert len(pauses) == 3  # a day is not waited for


def test_no_network_is_told_with_the_way_around_it_and_the_file_by_hand_is_accepted(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
    file = RemoteFile((refused, "http://nowhere.invalid/a"), "sub/a.bin", len(CONTENT), SHA)
    with pytest.raises(TransferError) as raised:
        fetch(file, tmp_path, options(retries=1))
    message = str(raised.value)
    assert "refuses the connection" in message
    assert "no such host nowhere.invalid" in message
    assert f"{refused}\nput it here:\n  {tmp_path / 'sub/a.bin'}" in message

    place = tmp_path / "sub/a.bin"
    place.parent.mkdir()
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=r"it has 327,802 bytes, wanted 327,803"):
        fetch(file, tmp_path, options())
    place.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch(file, tmp_path, options())
    assert place.exists()  # a person's file is not removed
    place.write_bytes(CONTENT)
    assert fetch(file, tmp_path, options()) == place


def test_a_silent_server_is_left_after_the_time_limit(server: FileServer, tmp_path: Path) -> None:
    url = server.add("slow", CONTENT, pause=3)
    with pytest.raises(TransferError, match="no answer in time"):
        fetch(RemoteFile((url,), "a"), tmp_path, options(retries=0, timeout_seconds=0.2))


def test_a_mirror_with_another_file_is_noticed_before_its_bytes_are_fetched(server: FileServer, tmp_path: Path) -> None:
    url = server.add("a", CONTENT)
    with pytest.raises(TransferError, match="it is another file"):
        fetch(RemoteFile((url,), "a", 5), tmp_path, options())
    assert not left_over(tmp_path)


def test_what_stands_in_a_files_place_is_not_taken_for_it(server: FileServer, tmp_path: Path) -> None:
    page = server.add("a.txt", b"<html>log in first", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(TransferError, match="a web page comes where"):
        fetch(RemoteFile((page,), "a.txt"), tmp_path, options())
    assert read_text(page) == "<html>log in first"
    packed = server.add("b.txt", b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    with pytest.raises(TransferError, match="compressed"):
        fetch(RemoteFile((packed,), "b.txt"), tmp_path, options())
    named = server.add("b.txt.gz", b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert fetch(RemoteFile((named,), "b.txt.gz"), tmp_path, options()).read_bytes() == b"\x1f\x8b"


def test_two_files_for_one_name_are_refused(server: FileServer, tmp_path: Path) -> None:
    one, two = RemoteFile((server.add("x/a", b"1"),), "a"), RemoteFile((server.add("y/a", b"2"),), "a")
    with pytest.raises(InputError, match="two files would go there"):
        fetch_all([one, two], tmp_path, options())


def test_the_other_files_are_fetched_where_one_cannot_be_had_and_all_are_named(
    server: FileServer, tmp_path: Path
) -> None:
    names = [f"{number}" for number in range(6)]
    for name in "124":
        server.add(name, CONTENT)
    files = [RemoteFile((f"{server.url}/{name}",), f"sub/{name}") for name in names]
    with pytest.raises(TransferError) as raised:
        fetch_all(files, tmp_path, options())
    message = str(raised.value)
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["1", "2", "4"]
    for name in "035":
        assert f"sub/{name}: no place has it" in message
        assert f"{server.url}/{name}\nput it here:\n  {tmp_path / 'sub' / name}\n" in message
    assert f"{server.url}/4" not in message

    many = [RemoteFile((f"{server.url}/x{number}",), f"x{number}") for number in range(50)]
    before = len(server.requests)
    with pytest.raises(TransferError, match="and so for 30 more files"):
        fetch_all(many, tmp_path, options())
    assert len(server.requests) == before + 3  # then it is not the file


def test_redirects_are_followed_but_not_for_ever_and_not_out_of_https(server: FileServer) -> None:
    server.add("a", CONTENT)
    there = server.add("there", b"", faults=[Fault(status=302, headers={"Location": "/a"})])
    assert b"".join(read_http(there, 5)[1]) == CONTENT[5:]
    loop = server.add("loop", b"", faults=[Fault(status=301, headers={"Location": "/loop"})] * 50)
    with pytest.raises(TransferError, match="more than 5 times"):
        read_http(loop)
    assert len(server.files["/loop"].faults) == 50 - 6
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/a", "http://[x/", "http://127.0.0.1:99999/"):
        out = server.add("out", b"", faults=[Fault(status=302, headers={"Location": place})] * 2)
        with pytest.raises(TransferError, match="no web address"):
            read_http(out)
        with pytest.raises(TransferError, match=r"no web address|answers 302"):
            get_json(out)


def test_numbers_of_thousands_of_digits_are_no_lengths(server: FileServer, tmp_path: Path) -> None:
    digits = "9" * 5000
    length = server.add("length", b"", faults=[Fault(status=200, headers={"Content-Length": digits})])
    with pytest.raises(TransferError, match="no number of bytes"):
        read_http(length)
    busy = Fault(status=503, headers={"Retry-After": digits})
    with pytest.raises(TransferError, match="answers 503"):
        fetch(RemoteFile((server.add("busy", b"", faults=[busy]),), "b"), tmp_path, options())
    span = Fault(status=206, headers={"Content-Range": f"bytes 5-9/{digits}"})
    with pytest.raises(StartOver, match="another part"):
        read_http(server.add("span", CONTENT, faults=[span]), 5)


def test_https_needs_a_trusted_certificate_and_is_not_left_for_http(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    with file_server(certificate) as secure:
        secure.add("a", CONTENT)
        with pytest.raises(TransferError, match="certificate is not trusted"):
            read_http(f"{secure.url}/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert b"".join(read_http(f"{secure.url}/a")[1]) == CONTENT
        out = secure.add("out", b"", faults=[Fault(status=302, headers={"Location": f"{server.url}/a"})] * 2)
        with pytest.raises(TransferError, match="from https to http"):
            read_http(out)
        with pytest.raises(TransferError, match="from https to http"):
            get_json(out)
        monkeypatch.delenv("SSL_CERT_FILE")
        asked = len(secure.requests)
        with pytest.raises(TransferError, match="certificate is not trusted") as told:
            get_json(f"{secure.url}/a", pause_seconds=60)  # not tried again
        assert not isinstance(told.value, TransferInterrupted)
        assert len(secure.requests) == asked
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/a", "/etc/passwd", "http://", "http://[::1", "data:,x"]
)
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no address to fetch from"):
        fetch(RemoteFile((url,), "a"), tmp_path, options())


def test_passwords_go_to_their_own_server_and_into_no_message_nor_file(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with file_server() as other:
        other.add("a", CONTENT, faults=[Fault(), Fault(drop_after=PIECE)])
        moved = [Fault(status=302, headers={"Location": f"{other.url}/a?token=t0p"})]
        server.add("a", b"", faults=moved * 2)
        file = RemoteFile(
            (f"{server.url.replace('//', '//me:s3cret@')}/a?key=h1dden",),
            "a",
            secret_header=SecretHeader(server.url, "X-Token", "t0ken"),
        )
        fetch(file, tmp_path, options())
        with pytest.raises(TransferError) as raised:
            fetch(file, tmp_path, options(retries=0, overwrite=True))
        assert server.requests[0].headers["Authorization"] == "Basic bWU6czNjcmV0"
        assert server.requests[0].headers["X-Token"] == "t0ken"
        assert server.requests[0].path == "/a?key=h1dden"
        assert {"Authorization", "X-Token"}.isdisjoint(other.requests[0].headers)
    kept = "".join(path.read_text("latin-1") for path in left_over(tmp_path) if path.suffix == ".json")
    assert kept
    everything = caplog.text + str(raised.value) + kept
    assert not [secret for secret in ("s3cret", "t0p", "h1dden", "t0ken", "bWU6") if secret in everything]
    assert show_url("https://me:pw@host:8/a?b=c#d") == "https://host:8/a?…"


def test_odd_characters_in_addresses_reach_the_server(server: FileServer) -> None:
    server.add("caf%C3%A9%20au%20lait", CONTENT)
    assert b"".join(read_http(f"{server.url}/café au lait")[1]) == CONTENT
    with pytest.raises(TransferError):
        read_http(f"{server.url}/a\r\nHost: b")


def test_a_list_of_checksums_is_not_read_without_end(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("a", CONTENT)
    monkeypatch.setattr(http, "_TEXT_LIMIT", PIECE)
    with pytest.raises(TransferError, match="short text"):
        read_text(url)


def test_a_full_disk_is_told_by_the_files_name_and_what_came_is_kept(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("a", CONTENT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PIECE, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            fetch(RemoteFile((url,), "a"), tmp_path, options())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert explain_os_error(raised.value).startswith(f"{tmp_path / 'a'}: ")
    assert not (tmp_path / "a").exists()
    assert fetch(RemoteFile((url,), "a"), tmp_path, options()).read_bytes() == CONTENT
    assert server.requests[-1].headers["Range"] == f"bytes={2 * PIECE}-"

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"needs 0.00 GB more, 0.00 GB are free"):
        fetch(RemoteFile((url,), "b"), tmp_path, options())


def test_two_starts_in_one_folder_exclude_each_other(server: FileServer, tmp_path: Path) -> None:
    with exclusive_lock(tmp_path, "downloads"), pytest.raises(InputError, match="is writing here; two downloads"):
        fetch(RemoteFile((server.add("a", CONTENT),), "a"), tmp_path, options())


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", "", "x\n", ".downloads/x", ".lock-workers", ".lock"])
def test_paths_outside_the_folder_are_refused(path: str, server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="below the output folder"):
        fetch(RemoteFile((server.add("a", CONTENT),), path), tmp_path / "out", options())
    assert server.requests == []


def test_a_killed_download_goes_on_where_it_was(server: FileServer, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(4 << 20)
    url = server.add("big", content, pause=0.02)
    code = (
        "import sys; from pathlib import Path; from bert_pytorch.remote.fetch import fetch;"
        "from bert_pytorch.remote.files import RemoteFile; fetch(RemoteFile((sys.argv[1],), 'big'), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path)]
    for _ in range(2):  # killed twice
        arrived = sum(path.stat().st_size for path in left_over(tmp_path))
        with subprocess.Popen(command, cwd=REPOSITORY) as process:
            deadline = time.monotonic() + 20
            while sum(path.stat().st_size for path in left_over(tmp_path)) < arrived + (1 << 20):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
        assert not (tmp_path / "big").exists()
    remove_partial_files(tmp_path)  # what a build in the same folder does
    server.files["/big"].pause = 0
    assert fetch(RemoteFile((url,), "big"), tmp_path, options()).read_bytes() == content
    starts = [int(request.headers["Range"][6:-1]) for request in server.requests[1:]]
    assert starts[0] >= 1 << 20
    assert starts[1] >= 2 << 20
    assert left_over(tmp_path) == []


def test_memory_does_not_grow_with_the_file(server: FileServer, tmp_path: Path) -> None:
    url = server.add("big", bytes(64 << 20))
    code = (
        "import re, sys; from pathlib import Path; from bert_pytorch.remote.fetch import fetch\n"
        "from bert_pytorch.remote.files import RemoteFile\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) >> 10\n"
        "before = peak(); fetch(RemoteFile((sys.argv[1],), 'f', None, sys.argv[2]), Path(sys.argv[3]))\n"
        "print(peak() - before)"
    )
    checksum = "sha256:" + hashlib.sha256(bytes(64 << 20)).hexdigest()
    said = subprocess.run(
        [sys.executable, "-c", code, url, checksum, tmp_path], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert int(said.stdout) < 8, said.stdout  # MiB


def test_s3_addresses_take_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bert_pytorch.remote import s3

    asked: list[tuple[str, int, str | None]] = []

    def read_s3(url: str, start: int, etag: str | None, *, timeout_seconds: float) -> tuple[s3.S3Info, Iterator[bytes]]:
        assert timeout_seconds == 5
        asked.append((url, start, etag))

        def chunks() -> Iterator[bytes]:
            yield CONTENT[start : start + PIECE]
            if len(asked) < 3:
                raise TransferInterrupted("cut")
            yield CONTENT[start + PIECE :]

        return s3.S3Info(len(CONTENT), '"e"'), chunks()

    monkeypatch.setattr(s3, "read_s3", read_s3)
    assert fetch(RemoteFile(("s3://bucket/a",), "a"), tmp_path, options()).read_bytes() == CONTENT
    assert asked == [("s3://bucket/a", 0, None), ("s3://bucket/a", PIECE, '"e"'), ("s3://bucket/a", 2 * PIECE, '"e"')]


def test_the_end_of_a_file_can_be_asked_for(server: FileServer) -> None:
    url = server.add("a", CONTENT)
    info, chunks = read_http(url, len(CONTENT))
    assert (info.size, list(chunks)) == (len(CONTENT), [])
    with pytest.raises(StartOver):
        read_http(url, len(CONTENT) + 1)
