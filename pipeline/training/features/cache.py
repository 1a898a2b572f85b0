"""The features of images, remembered by this machine; safe to delete.

They lie in pieces, files that are written once: the sorted keys of some images, and their features.
"""

import os
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Vectors
from pipeline.artifacts.files import atomic
from pipeline.artifacts.local_cache import cache
from pipeline.errors import ArtifactError

Keys = NDArray[np.uint64]  # (n,), each the start of the sha256 of an image's pixels

# All features that this machine remembers: of two million images, if each has 1,280.
MOST_BYTES = 10 * 2**30
# As many pieces with less than so many images are joined.
MANY, SMALL = 16, 1024
DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, NotImplementedError)


def folder_of_features() -> Path:
    """Return the folder of all features: `features` of the cache."""
    return cache() / "features"


class FeatureCache:
    """The features that one network computes; any number of processes may use it at once.

    Args:
        network: tells the network, its weights and how it is computed; a name for a folder.
        width: the number of features of an image.
        most_bytes: above that, what has not been used for longest is removed, of any network.
        top: the folder of all features.
    """

    def __init__(
        self, network: str, width: int, most_bytes: int = MOST_BYTES, top: Path | None = None
    ) -> None:
        self._top = top or folder_of_features()
        self.folder = self._top / network
        self._width, self._most_bytes = width, most_bytes

    def find(self, keys: Keys) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the features of images, and which of them are known; the others are zero.

        A damaged piece is removed: what was in it is computed again.
        """
        found = np.zeros((len(keys), self._width), np.float32)
        known = np.zeros(len(keys), np.bool_)
        for piece in self._pieces():
            missing = np.flatnonzero(~known)
            if not len(missing):
                break
            if (there := self._read(piece, keys[missing])) is None:
                continue
            hits, vectors = there
            found[missing[hits]], known[missing[hits]] = vectors, True
            with suppress(OSError):
                os.utime(piece)
        return found, known

    def add(self, keys: Keys, vectors: Vectors) -> None:
        """Remember the features of images; where that fails, it is said and nothing is lost."""
        try:
            self._write(keys, vectors)
            self._join_small()
            self._remove_oldest()
        except ArtifactError as error:
            warnings.warn(f"features are not remembered: {error}", stacklevel=2)

    def _pieces(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.npz"))

    def _read(self, piece: Path, keys: Keys) -> tuple[NDArray[np.intp], Vectors] | None:
        """Return which keys are in a piece, and their features; None where there are none."""
        try:
            # Every array in it has a checksum, which is compared when all of it has been read.
            with np.load(piece, allow_pickle=False) as content:
                there = content["keys"]
                places = np.searchsorted(there, keys).clip(max=len(there) - 1)
                hits = np.flatnonzero(there[places] == keys)
                if not len(hits):
                    return None
                vectors = content["vectors"]
            if vectors.shape != (len(there), self._width):
                raise ValueError(f"{vectors.shape} is not ({len(there)}, {self._width})")
        except FileNotFoundError:
            return None  # another process has removed or joined it
        except DAMAGED as error:
            warnings.warn(f"{piece} is damaged and computed again: {error}", stacklevel=3)
            with suppress(OSError):
                piece.unlink()
            return None
        return hits, vectors[places[hits]]

    def _write(self, keys: Keys, vectors: Vectors) -> None:
        keys, first = np.unique(keys, return_index=True)
        with atomic(self.folder / f"{uuid.uuid4().hex}.npz") as part, part.open("wb") as file:
            np.savez(file, keys=keys, vectors=vectors[first].astype(np.float32))

    def _join_small(self) -> None:
        """Make one piece of many small ones: who adds an image a day has no file for each."""
        row = 4 * self._width + 8
        small = [one for one in self._pieces() if _size(one) < SMALL * row]
        if len(small) < MANY:
            return
        read = []
        for piece in small:
            with suppress(*DAMAGED), np.load(piece, allow_pickle=False) as content:
                read.append((content["keys"], content["vectors"]))
        if read:
            keys, vectors = zip(*read, strict=True)
            self._write(np.concatenate(keys), np.concatenate(vectors))
        for piece in small:
            piece.unlink(missing_ok=True)

    def _remove_oldest(self) -> None:
        files = [file for file in _files(self._top) if _size(file)]
        left = sum(map(_size, files)) - self._most_bytes
        for file in sorted(files, key=_used_at):
            if left <= 0:
                return
            left -= _size(file)
            with suppress(OSError):
                file.unlink()


def _files(top: Path) -> Iterator[Path]:
    return (file for file in top.glob("*/*") if file.is_file())


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _used_at(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
