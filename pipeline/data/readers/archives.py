"""Archives, which are untrusted: members are streamed, bounded, and never written to disk."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from pipeline.data.readers.content import Caps, open_content
from pipeline.data.readers.reader import Columns, Entry, as_text
from pipeline.errors import ArchiveError

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error)
DEFLATE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BLOCK = 512
UTF8 = 0x800  # the flag of a zip's member whose name is UTF-8, and not of code page 437
# A tar may have extra headers before a member, such as long names.
# tarfile searches them in a time that grows with the square of their length.
HEADERS, READ_AHEAD = 1 << 17, 1 << 15


def zip_entries(path: Path, caps: Caps, columns: Columns | None = None) -> Iterator[Entry]:
    """Stream the entries of a `.zip`; for the errors see `readers.entries`."""
    return _checked(_zip(path, caps), path, caps)


def tar_entries(path: Path, caps: Caps, columns: Columns | None = None) -> Iterator[Entry]:
    """Stream the entries of a `.tar` or `.tar.gz`; for the errors see `readers.entries`."""
    return _checked(_tar(path, caps), path, caps)


def _checked(found: Iterator[Entry], path: Path, caps: Caps) -> Iterator[Entry]:
    seen: set[str] = set()
    with _explained(path):
        for entry in found:
            if entry.name in seen and not entry.name.endswith("/"):
                raise ArchiveError(f"{path.name} holds {entry.name!r} twice")
            seen.add(entry.name)
            if len(seen) > caps.files:
                raise ArchiveError(f"{path.name} holds more than {caps.files:,} files")
            yield entry


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged bytes into an ArchiveError."""
    try:
        yield
    except (*DAMAGE, OSError, EOFError, ValueError, OverflowError, NotImplementedError) as error:
        raise ArchiveError(
            f"{path.name} is damaged, truncated, or not a .zip or .tar: {error}"
        ) from error


def _name(raw: str, folder: bool, path: Path) -> str:
    """Check and normalise the name of a member."""
    pure = PurePosixPath(raw.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or raw[1:2] == ":" or "\0" in raw:
        raise ArchiveError(f"{path.name}: member {raw!r} would lie outside of the target")
    return as_text(f"{pure}/" if folder else str(pure))


def _check_size(size: int, name: str, path: Path, caps: Caps) -> None:
    if not 0 <= size <= caps.file_bytes:
        raise ArchiveError(
            f"{path.name}: member {name!r} has {size:,} bytes; allowed: {caps.file_bytes:,}"
        )


def _tar(path: Path, caps: Caps) -> Iterator[Entry]:
    end = 0
    with open_content(path, caps) as content:
        # tarfile reads a header into memory whatever its size.
        content.limit = HEADERS
        with tarfile.open(fileobj=cast(BinaryIO, content), mode="r|", bufsize=READ_AHEAD) as tar:
            for member in tar:
                name = _name(member.name, member.isdir(), path)
                if not (member.isdir() or member.isfile()) or member.issparse():
                    raise ArchiveError(f"{path.name}: member {name!r} is a link or a device")
                _check_size(member.size, name, path, caps)
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                content.limit = end + HEADERS

                def read(member: tarfile.TarInfo = member) -> bytes:
                    with _explained(path):
                        file = tar.extractfile(member)
                        return file.read() if file else b""

                yield Entry(name, read)
                tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every one
            content.limit = caps.total_bytes
            while content.read():
                pass  # to the end, so that gzip compares its checksum
    # tarfile takes a damaged or missing header for the end, but a tar ends with empty blocks.
    rest = content.position - end
    if rest < BLOCK or rest > len(content.tail) or content.tail[-rest:].strip(b"\0"):
        raise ArchiveError(f"{path.name} is damaged or truncated after {end:,} bytes")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member of a zip, which may be UTF-8 without saying so, as on macOS."""
    if info.flag_bits & UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _zip(path: Path, caps: Caps) -> Iterator[Entry]:
    packed, total = path.stat().st_size, 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _name(_zip_name(info), info.is_dir(), path)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{path.name}: member {name!r} is a link or a device")
            if info.flag_bits & 0x1:
                raise ArchiveError(f"{path.name}: member {name!r} is encrypted")
            if info.compress_type not in DEFLATE:
                raise ArchiveError(f"{path.name}: member {name!r} is not packed with deflate")
            _check_size(info.file_size, name, path, caps)
            total += info.file_size
            caps.check_total(total, packed, path)

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with _explained(path), archive.open(info) as file:
                    # No more than the header says: a lie shows as a wrong CRC.
                    return file.read(info.file_size + 1)

            yield Entry(name, read)
