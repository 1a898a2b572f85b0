"""archives: what is inside, and every way in which one may be hostile."""

import gzip
import os
import struct
import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.data.readers.content import Caps, digest, open_content
from pipeline.data.readers.readers import entries
from pipeline.errors import ArchiveError
from tests.images import make_tar, make_zip

CONTENT = {"a/1.txt": b"one", "a/2.txt": b"two" * 100, "b/3.txt": b""}
SMALL = Caps(files=3, file_bytes=1000, total_bytes=20_000, ratio=10, free_bytes=12_000)


def everything(path: Path, caps: Caps | None = None) -> dict[str, bytes]:
    return {entry.name: entry.read() for entry in entries(path, caps)}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: make_zip(path, CONTENT),
        lambda path: make_tar(path, CONTENT, "w"),
        lambda path: make_tar(path, CONTENT, "w:gz"),
    ],
)
def test_members_are_read_whatever_the_file_is_called(tmp_path, make):
    assert everything(make(tmp_path / "archive")) == CONTENT


def test_folders_end_with_a_slash(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        folder = tarfile.TarInfo("empty")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    make_zip(tmp_path / "x.zip", {"empty/": b""})
    assert [e.name for e in entries(tmp_path / "x.tar")] == ["empty/"]
    assert [e.name for e in entries(tmp_path / "x.zip")] == ["empty/"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.png", "a/../../up.png", "..\\up.png", "C:\\x.png", "C:/x.png"]
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_path_outside_is_refused(tmp_path, make, name):
    with pytest.raises(ArchiveError, match=r"outside of the target"):
        everything(make(tmp_path / "x", {name: b"x"}))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("a/evil.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(ArchiveError, match=r"'a/evil.png' is a link or a device"):
        everything(tmp_path / "x.tar")


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("a/evil.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    make_zip(tmp_path / "x.zip", {})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"'a/evil.png' is a link"):
        everything(tmp_path / "x.zip")


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(make_zip(tmp_path / "x.zip", {"a.png": b"x" * 50}).read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"'a.png' is encrypted"):
        everything(tmp_path / "x.zip")


def test_another_compression_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"x" * 50)
    with pytest.raises(ArchiveError, match=r"not packed with deflate"):
        everything(tmp_path / "x.zip")


@pytest.mark.parametrize("codec", ["utf-8", "cp437"])
def test_names_in_a_zip_are_read_as_they_were_meant(tmp_path, codec):
    name, plain = "bär/größe.png", "x" * len("bär/größe.png".encode(codec))
    # As macOS writes UTF-8, and old programs their code page: without the flag.
    data = make_zip(tmp_path / "x.zip", {plain: b"x"}).read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(plain.encode(), name.encode(codec)))
    assert everything(tmp_path / "x.zip") == {name: b"x"}
    make_zip(tmp_path / "y.zip", {name: b"x"})
    assert everything(tmp_path / "y.zip") == {name: b"x"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({f"{number}": b"" for number in range(4)}, "more than 3 files"),
        ({"big.png": os.urandom(1001)}, "'big.png' has 1,001 bytes; allowed: 1,000"),
    ],
)
def test_caps_on_files_and_bytes(tmp_path, make, content, reason):
    with pytest.raises(ArchiveError, match=reason):
        everything(make(tmp_path / "x", content), SMALL)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("caps", "reason"),
    [
        (Caps(total_bytes=200_000), "more than 200,000 bytes"),
        (Caps(ratio=10, free_bytes=1000), "more than 10 times its size"),
    ],
)
def test_caps_on_total_and_ratio(tmp_path, make, caps, reason):
    path = make(tmp_path / "x", {f"{number}.bmp": bytes(50_000) for number in range(6)})
    with pytest.raises(ArchiveError, match=reason):
        everything(path, caps)


def test_a_gzip_bomb_stops_at_the_cap(tmp_path):
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        for _ in range(16):
            file.write(bytes(1 << 20))
    with pytest.raises(ArchiveError, match="more than 10 times its size"):
        digest(tmp_path / "x.gz", ("md5",), Caps(ratio=10, free_bytes=1 << 21))


def test_a_tar_header_cannot_fill_the_memory(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(16):
            file.write(b"9" * (1 << 20))
    with pytest.raises(ArchiveError, match="holds a header that is too long"):
        everything(tmp_path / "x.tar.gz", Caps())


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_member_named_twice_is_refused(tmp_path, make):
    class Twice(dict[str, bytes]):
        def items(self):
            return [("a.png", b"1"), ("a.png", b"2")]

    warns = pytest.warns(UserWarning, match="Duplicate") if make is make_zip else nullcontext()
    with warns:
        make(tmp_path / "x", Twice())
    with pytest.raises(ArchiveError, match=r"holds 'a.png' twice"):
        everything(tmp_path / "x")


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.png": bytes(1 << 20)})
    data = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10))
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        everything(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_is_an_error(tmp_path, share, mode):
    content = {f"{number}.png": os.urandom(300 + number) for number in range(40)}
    data = make_tar(tmp_path / "x", content, mode).read_bytes()
    data = data.rstrip(b"\0") if mode == "w" else data
    (tmp_path / "x").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArchiveError, match=r"damaged|truncated"):
        everything(tmp_path / "x")


def test_a_damaged_header_inside_a_tar_is_no_silent_end(tmp_path):
    data = bytearray(make_tar(tmp_path / "x", CONTENT, "w").read_bytes())
    second = data.index(b"a/2.txt")
    data[second : second + 3] = b"zzz"
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged or truncated after 1,024 bytes"):
        everything(tmp_path / "x")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_an_error(tmp_path, share):
    data = make_zip(tmp_path / "x.zip", CONTENT).read_bytes()
    (tmp_path / "x.zip").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArchiveError, match="truncated"):
        everything(tmp_path / "x.zip")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_flipped_byte_is_an_error(tmp_path, make):
    data = bytearray(make(tmp_path / "x", {"a.png": os.urandom(5000)}).read_bytes())
    data[2500] ^= 0xFF
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        everything(tmp_path / "x")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b", b"<html></html>" * 100])
def test_what_is_no_archive_is_an_error(tmp_path, data):
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"x.tar.gz is damaged"):
        everything(tmp_path / "x.tar.gz")


def test_a_large_member_is_read_whole(tmp_path):
    big = os.urandom(3 << 20)
    path = make_tar(tmp_path / "x", {"a": b"1", "big": big, "z": b"2"})
    assert everything(path) == {"a": b"1", "big": big, "z": b"2"}


def test_content_is_what_is_inside_the_wrapper(tmp_path):
    (tmp_path / "plain").write_bytes(b"x" * 100)
    (tmp_path / "wrapped").write_bytes(gzip.compress(b"x" * 100, 1))
    assert digest(tmp_path / "plain", ("md5",)) == digest(tmp_path / "wrapped", ("md5",))
    with open_content(tmp_path / "wrapped") as content:
        assert content.read(10) == b"x" * 10
