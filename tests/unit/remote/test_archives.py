"""Archives that are honest, damaged or hostile."""

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.remote.archives import UnpackLimits, unpack

TEXT = random.Random(1).randbytes(300_000)
KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


def pack(path: Path, members: list[tuple[object, bytes]]) -> Path:
    """Write an archive of the kind that its name says; members are names, TarInfo or ZipInfo, with contents."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, content in members:
                file.writestr(entry, content)  # type: ignore[arg-type]
    else:
        mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.rpartition(".")[2], "w")
        with tarfile.open(path, mode) as tar:
            for entry, content in members:
                info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(str(entry))
                info.size = len(content) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, message: str, **how: object) -> None:
    folder = archive.parent / "out" / "folder"
    with pytest.raises(InputError, match=message):
        unpack(archive, folder, **how)  # type: ignore[arg-type]
    assert list(folder.parent.iterdir()) == []
    assert not (archive.parent / "evil").exists()
    assert not (archive.parent / "out" / "evil").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_packed_comes_out_and_one_top_folder_is_the_folder(kind: str, tmp_path: Path) -> None:
    archive = pack(
        tmp_path / f"a.{kind}",
        [("top/a.txt", TEXT), ("./top/b/ü.txt", b"x"), ("__MACOSX/top/._a", b""), ("top/Icon\r", b"")],
    )
    unpack(archive, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert sorted(found) == ["a.txt", "b/ü.txt"]
    assert found["a.txt"].read_bytes() == TEXT
    unpack(pack(tmp_path / f"two.{kind}", [("a", b"1"), ("b/c", b"2")]), tmp_path / "two")
    assert (tmp_path / "two/b/c").read_bytes() == b"2"
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", "climbs out"),
        ("a/../../evil", "climbs out"),
        ("/tmp/evil", "is absolute"),
        ("a\\..\\evil", "backslash"),
        ("../ev\nil", "control"),
    ],
)
def test_names_that_lead_out_are_refused(kind: str, name: str, message: str, tmp_path: Path) -> None:
    refused(pack(tmp_path / f"a.{kind}", [("good.txt", b"1"), (name, b"2")]), message)


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(type_: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("way")
    member.type, member.linkname = type_, "../../evil"
    refused(pack(tmp_path / "a.tar.gz", [(member, b""), ("way/evil", b"2")]), "is a (link|device)")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("way")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(pack(tmp_path / "a.zip", [(member, b"..")]), "is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_come_twice_are_refused(kind: str, tmp_path: Path) -> None:
    refused(pack(tmp_path / f"a.{kind}", [("a", b"1"), ("./a", b"2")]), "twice")


@pytest.mark.parametrize("kind", KINDS)
def test_bombs_are_not_unpacked_and_take_no_memory(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a.{kind}", [("zeros", bytes(64 << 20))])
    limits = UnpackLimits(ratio=20, small=1 << 20) if kind != "tar" else UnpackLimits(bytes=1 << 20)
    tracemalloc.start()
    try:
        refused(archive, "unpacks to more than", limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
    many = pack(tmp_path / f"many.{kind}", [(f"{number}", b"") for number in range(20)])
    refused(many, "over 10 members", limits=UnpackLimits(members=10))


def test_a_tar_header_that_claims_gigabytes_is_not_believed(tmp_path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 5 << 30
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(tmp_path / "a.tar", "damaged")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives_are_told(kind: str, tmp_path: Path) -> None:
    whole = pack(tmp_path / f"a.{kind}", [("a", TEXT), ("b", TEXT)]).read_bytes()
    (tmp_path / f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / f"cut.{kind}", "damaged")
    (tmp_path / f"other.{kind}").write_bytes(b"<html>not found</html>")
    refused(tmp_path / f"other.{kind}", "damaged")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_tar_that_ends_early_is_no_whole_one(kind: str, tmp_path: Path) -> None:
    plain = pack(tmp_path / "a.tar", [(f"{number}.txt", TEXT[:1000]) for number in range(6)]).read_bytes()
    header = 3 * (512 + 1024)
    damaged = {
        "cut between two files": plain[:header],
        "cut in a header": plain[: header + 100],
        "bad header": plain[:header] + b"?" + plain[header + 1 :],
        "header of zeros": plain[:header] + bytes(512) + plain[header + 512 :],
        "rest after the end": plain + b"garbage",
    }
    compress = {"tar": bytes, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}.get(kind, gzip.compress)
    for name, content in damaged.items():
        (tmp_path / f"{name}.{kind}").write_bytes(compress(content))
        refused(tmp_path / f"{name}.{kind}", "damaged")
    (tmp_path / f"whole.{kind}").write_bytes(compress(plain))
    unpack(tmp_path / f"whole.{kind}", tmp_path / "whole")
    assert len(list((tmp_path / "whole").iterdir())) == 6


def test_what_gzip_says_of_a_tar_is_believed(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar.gz", [("a", TEXT), ("b", TEXT)]).read_bytes()
    for name, content in {
        "checksum": whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
        "cut": whole[:-4],
        "rest": whole + b"garbage",
    }.items():
        (tmp_path / f"{name}.tar.gz").write_bytes(content)
        refused(tmp_path / f"{name}.tar.gz", "damaged")


def test_files_with_another_checksum_than_published_are_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", [("top/vocab.txt", b"abc")])
    refused(archive, r"the SHA-256 of vocab.txt in it is ba7816bf", checksums={"vocab.txt": "0" * 64})
    refused(archive, r"holds no other.txt", checksums={"other.txt": "0" * 64})


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"")
    refused(tmp_path / "a.rar", "what kind of archive")
