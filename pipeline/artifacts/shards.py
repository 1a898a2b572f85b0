"""Images in shards: files of rows that are written once, and splits that are rows of them."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import read_array
from pipeline.artifacts.record import Frozen, Record
from pipeline.errors import ArtifactError

SHARDS, INDEX = "shards.json", "shards.parquet"
BYTES_AT_ONCE = 2**24
# Fewer bytes that follow one another are copied out of a map.
LEAST_READ = 2**12


class Shard(Frozen):
    """A `.npy` file of images; another content has another name."""

    name: str
    rows: int


def starts_of(shards: Iterable[Shard]) -> NDArray[np.int64]:
    """Return the first row of each shard, and the number of all rows."""
    return np.cumsum([0, *(shard.rows for shard in shards)], dtype=np.int64)


class ShardList(Record):
    """`shards.json`: the shards whose rows, one shard after the other, are counted from 0.

    Attributes:
        folder: where the shards lie, relative to the folder of this file.
        made_by: what the pixels depend on besides the files of the images: size, decoder, …
    """

    shards: tuple[Shard, ...]
    image_shape: tuple[int, int, int]
    folder: str = "."
    made_by: str = ""

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each shard, and the number of all rows."""
        return starts_of(self.shards)

    def paths(self, folder: Path) -> list[Path]:
        """Return the path of each shard, given the folder of this file."""
        place = Path(os.path.normpath(folder / self.folder))
        return [place / shard.name for shard in self.shards]


class Rows:
    """Images of a split, which are rows of shards: an array that is read where it is indexed.

    It has the shape of an array (n, height, width, channels) and is indexed as one; what is asked
    for is copied out of the shards. `numpy.take` and `numpy.asarray` work on it too.

    Args:
        paths: the shards.
        starts: the first row of each, and the number of all rows.
        rows: which row each image is, (n,).
        image_shape: height, width, channels.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        paths: Sequence[Path],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        image_shape: tuple[int, int, int],
    ) -> None:
        self.rows = rows
        self.shape = (len(rows), *image_shape)
        self._paths, self._starts = paths, starts
        if len(rows) and not 0 <= rows.min() <= rows.max() < starts[-1]:
            raise ArtifactError(f"rows {rows.min()} to {rows.max()} are not in {starts[-1]} images")

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """How many bytes all images take."""
        return self.size

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        step = max(1, BYTES_AT_ONCE // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        rows = self.rows[first]
        images = self._read(np.atleast_1d(rows).ravel())
        images = images.reshape(*np.shape(rows), *self.shape[1:])
        if not rest:
            return images
        return images[(*[slice(None)] * np.ndim(rows), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("images in shards cannot be seen as one array without a copy")
        images = self._read(self.rows)
        return images if dtype is None else images.astype(dtype, copy=False)

    def take(
        self,
        indices: NDArray[Any],
        axis: int | None = 0,
        out: NDArray[np.uint8] | None = None,
        mode: str = "raise",
    ) -> NDArray[np.uint8]:
        """Copy images, into `out` where it is given; for `numpy.take` along the first axis."""
        if axis != 0:
            raise ValueError("images in shards are taken along the first axis")
        return self._read(self.rows[indices], out)

    def _read(
        self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8) if out is None else out
        shards = np.searchsorted(self._starts, rows, "right") - 1
        for places in _runs(shards):
            first = places.start if isinstance(places, slice) else places[0]
            path, wanted = self._paths[shards[first]], rows[places] - self._starts[shards[first]]
            if isinstance(places, slice) and images.flags.c_contiguous:
                _copy(path, wanted, images[places])
            else:
                some = np.empty((len(wanted), *self.shape[1:]), np.uint8)
                _copy(path, wanted, some)
                images[places] = some
        return images


def _copy(path: Path, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Copy rows of a shard, those that follow one another at once.

    They are read and not mapped where that is many bytes: a map costs a fault for each page, and
    its pages count as memory of this process.
    """
    x = read_array(path)
    if x.dtype != np.uint8 or x.shape[1:] != out.shape[1:] or rows.max() >= len(x):
        raise ArtifactError(
            f"{path} holds {x.dtype} {x.shape}, which are not images of {out.shape[1:]}, uint8, "
            f"of which row {rows.max()} is one"
        )
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    if out.nbytes < LEAST_READ * (len(edges) - 1) or not isinstance(x, np.memmap):
        np.take(x, rows, axis=0, out=out, mode="clip")
        return
    size, offset = out[:1].nbytes, x.offset
    with path.open("rb", buffering=0) as file:
        for start, end in pairwise(edges):
            file.seek(offset + int(rows[start]) * size)
            # At most 64 MB, which one call reads.
            if file.readinto(out[start:end].reshape(-1).data) != (end - start) * size:
                raise ArtifactError(f"{path} ends before its last row")


def _runs(shards: NDArray[np.int64]) -> Iterator[slice | NDArray[np.int64]]:
    """Yield the places of each shard's rows: as a slice where they follow one another."""
    if not len(shards):
        return
    edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
    if len(edges) - 1 == len(np.unique(shards)):
        yield from (slice(*edge) for edge in pairwise(edges))
        return
    order = np.argsort(shards, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(shards[order])) + 1)


def digest_of(sha256: Iterable[bytes], image_shape: tuple[int, ...]) -> str:
    """Return an md5 that is equal where images are: of their shape and the sha256 of each."""
    digest = hashlib.md5(repr(tuple(image_shape)).encode())
    for one in sha256:
        digest.update(one)
    return digest.hexdigest()
