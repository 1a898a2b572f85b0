"""The content of a file, decompressed if need be, read within limits."""

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import ArchiveError

CHUNK = 1 << 20


def _open_zstandard(file: BinaryIO) -> Any:
    try:
        import zstandard
    except ImportError:
        raise ArchiveError(
            "a file compressed with zstd needs the package zstandard: pip install zstandard"
        ) from None
    return zstandard.ZstdDecompressor().stream_reader(file)


# How files begin that are compressed, and what decompresses them.
OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstandard,
}


@dataclass(frozen=True)
class Caps:
    """Limits of what is read from one downloaded file or archive.

    Attributes:
        files: members of an archive.
        file_bytes: bytes of one member, unpacked.
        total_bytes: bytes of all members, unpacked.
        ratio: unpacked to packed size; it counts only beyond `free_bytes` unpacked bytes.
        free_bytes: see ratio.
    """

    files: int = 2_000_000
    file_bytes: int = 1 << 28
    total_bytes: int = 1 << 36
    ratio: int = 200
    free_bytes: int = 1 << 26

    def check_total(self, unpacked: int, packed: int, path: Path) -> None:
        """Raise an ArchiveError where that many bytes out of so few are too many."""
        if unpacked > self.total_bytes:
            raise ArchiveError(f"{path.name} unpacks to more than {self.total_bytes:,} bytes")
        if unpacked > max(self.free_bytes, self.ratio * packed):
            raise ArchiveError(f"{path.name} unpacks to more than {self.ratio} times its size")


class Content:
    """A reader that decompresses, counts bytes and stops at the caps.

    Attributes:
        position: bytes read so far.
        limit: the position at which reading is an error.
        tail: the last bytes read, at most `TAIL`.
    """

    TAIL = 1 << 16

    def __init__(self, file: BinaryIO, path: Path, caps: Caps) -> None:
        start = file.read(max(map(len, OPENERS)))
        self._packed = file.seek(0, io.SEEK_END)
        file.seek(0)
        opener = next((made for magic, made in OPENERS.items() if start.startswith(magic)), None)
        self._file = opener(file) if opener else file
        self._path, self._caps = path, caps
        self.position, self.limit, self.tail = 0, caps.total_bytes, b""

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes, at most a chunk.

        Raises:
            ArchiveError: compressed data is damaged or truncated, or a cap is reached.
        """
        try:
            data = self._file.read(CHUNK if size < 0 else min(size, CHUNK))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ArchiveError(f"{self._path.name} is damaged or truncated: {error}") from error
        self.position += len(data)
        self._caps.check_total(self.position, self._packed, self._path)
        if self.position > self.limit:
            raise ArchiveError(
                f"{self._path.name} holds a header that is too long, or no header where one is due"
            )
        self.tail = (self.tail + data)[-self.TAIL :]
        return data


@contextmanager
def open_content(path: Path, caps: Caps | None = None) -> Iterator[Content]:
    """Open a file for reading, decompressed if need be."""
    with path.open("rb") as file:
        yield Content(file, path, caps or Caps())


def digest(path: Path, algorithms: tuple[str, ...], caps: Caps | None = None) -> tuple[str, ...]:
    """Return checksums of the decompressed content, in the order of the algorithms.

    Raises:
        ArchiveError: compressed data is damaged, or a cap is reached.
    """
    hashes = [hashlib.new(name) for name in algorithms]
    with open_content(path, caps) as content:
        while data := content.read():
            for each in hashes:
                each.update(data)
    return tuple(each.hexdigest() for each in hashes)
