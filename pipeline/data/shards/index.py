"""The images that lie in shards already: of the version that is replaced, or of one DVC keeps."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import atomic, read_array
from pipeline.artifacts.local_cache import Digests
from pipeline.artifacts.shards import INDEX, SHARDS, Shard, ShardList, starts_of
from pipeline.errors import ArtifactError
from pipeline.parallel import cores

ROWS_PER_GROUP = 2**15


@dataclass
class Index:
    """`shards.parquet`: what is known of each image in the shards, in the order of their rows.

    Attributes:
        content: the sha256 of its file, (n, 32); zero where that could not be read.
        pixels: the sha256 of its pixels, (n, 32).
        height: in the file, (n,); 0 where not known, as is width.
        width: likewise.
        mode: Pillow's.
        error: why it could not be decoded; empty where it could.
    """

    content: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    mode: NDArray[np.object_]
    error: NDArray[np.object_]

    @classmethod
    def blank(cls, count: int) -> "Index":
        """Return the index of images of which nothing is known yet."""
        return cls(
            content=np.zeros((count, 32), np.uint8),
            pixels=np.zeros((count, 32), np.uint8),
            height=np.zeros(count, np.int32),
            width=np.zeros(count, np.int32),
            mode=np.full(count, "", object),
            error=np.full(count, "", object),
        )

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read the file.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                table = file.read(use_threads=False)
            return cls(
                content=_bytes(table["content"]),
                pixels=_bytes(table["pixels"]),
                height=table["height"].to_numpy().astype(np.int32),
                width=table["width"].to_numpy().astype(np.int32),
                mode=np.array(table["mode"].to_pylist(), object),
                error=np.array(table["error"].to_pylist(), object),
            )
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise ArtifactError(f"cannot read {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "content": _binary(self.content),
            "pixels": _binary(self.pixels),
            "height": self.height,
            "width": self.width,
            "mode": pa.array(self.mode.tolist(), pa.string()),
            "error": pa.array(self.error.tolist(), pa.string()),
        }
        with atomic(path) as part:
            pq.write_table(pa.table(columns), part, row_group_size=ROWS_PER_GROUP)

    def put(self, places: NDArray[np.int64] | slice, other: "Index") -> None:
        """Take over what is known of some images."""
        for name in ("content", "pixels", "height", "width", "mode", "error"):
            getattr(self, name)[places] = getattr(other, name)

    def at(self, rows: NDArray[np.int64] | slice) -> "Index":
        """Return the index of some images."""
        return Index(
            *(self.content[rows], self.pixels[rows], self.height[rows], self.width[rows]),
            *(self.mode[rows], self.error[rows]),
        )


def _bytes(column: Any) -> NDArray[np.uint8]:
    parts = (
        np.frombuffer(part.buffers()[1], np.uint8)[32 * part.offset :][: 32 * len(part)]
        for part in column.chunks
    )
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, 32)


def _binary(hashes: NDArray[np.uint8]) -> Any:
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(hashes))
    return pa.Array.from_buffers(pa.binary(32), len(hashes), [None, buffer])


@dataclass(frozen=True)
class Earlier:
    """Shards that are there, and what is in them; none to begin with."""

    shards: tuple[Shard, ...]
    paths: tuple[Path, ...]
    index: Index

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each shard, and the number of all rows."""
        return starts_of(self.shards)


def find_earlier(
    versions: Iterable[Mapping[str, Path]], made_by: str, image_shape: tuple[int, int, int]
) -> Earlier:
    """Return the shards of the first version whose pixels were made in the same way.

    Shards that are missing, or not what the index says, are left out.

    Args:
        versions: the files of each earlier version, by name.
        made_by: see `ShardList`.
        image_shape: height, width, channels.
    """
    for files in versions:
        try:
            there = ShardList.load(files[SHARDS])
            index = Index.load(files[INDEX])
        except (KeyError, ArtifactError):
            continue
        same = (there.made_by, there.image_shape) == (made_by, image_shape)
        if same and len(index.error) == there.starts[-1]:
            return _intact(there, index, files)
    return Earlier((), (), Index.blank(0))


def _intact(there: ShardList, index: Index, files: Mapping[str, Path]) -> Earlier:
    starts = there.starts
    parts = [slice(*edge) for edge in pairwise(starts.tolist())]
    with Digests() as digests, ThreadPoolExecutor(cores()) as pool:
        found = [files.get(shard.name) for shard in there.shards]
        pixels = [index.pixels[part] for part in parts]
        good = list(pool.map(_is_intact, found, pixels, [_known(f, digests) for f in found]))
        for path, sums, intact in zip(found, pixels, good, strict=True):
            if path and intact:
                digests.remember(str(path), _digest(sums))
    kept = [number for number, intact in enumerate(good) if intact]
    rows = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in kept] or [starts[:0]])
    paths = tuple(path for path, intact in zip(found, good, strict=True) if path and intact)
    return Earlier(tuple(there.shards[n] for n in kept), paths, index.at(rows))


def remember(folder: Path, there: ShardList, index: Index) -> None:
    """Remember that shards which have just been written hold what the index says."""
    starts = there.starts.tolist()
    with Digests() as digests:
        for number, path in enumerate(there.paths(folder)):
            if not _known(path, digests):
                digests.remember(
                    str(path), _digest(index.pixels[starts[number] : starts[number + 1]])
                )


def _known(path: Path | None, digests: Digests) -> str:
    return digests.look_up(str(path), only_content=True) if path else ""


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _is_intact(path: Path | None, pixels: NDArray[np.uint8], known: str) -> bool:
    """Return whether a shard holds what the index says; it is read unless that is remembered."""
    if path is None:
        return False
    try:
        images = read_array(path)
    except ArtifactError:
        return False
    if images.dtype != np.uint8 or len(images) != len(pixels):
        return False
    if known == _digest(pixels):
        return True
    sums = b"".join(hashlib.sha256(image.data).digest() for image in images)
    return sums == pixels.tobytes()
