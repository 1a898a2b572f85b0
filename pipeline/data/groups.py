"""Groups of images that nearly repeat one another, which are in one split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import similar
from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import read_array
from pipeline.artifacts.shard_memory import ShardMemory
from pipeline.artifacts.shards import Rows, ShardList
from pipeline.data.layout import Labelled
from pipeline.data.shards.index import Index
from pipeline.data.shards.packing import rows_of
from pipeline.data.splits import NEAR_DUPLICATES
from pipeline.parallel import spread
from pipeline.similar import Thumbnails, coarse, dhash, first_of_group, near_duplicates, thumbnails

ROWS_AT_ONCE = 256
# From this many on, processes are worth their start.
MANY_ROWS = 30_000
Looks = dict[str, NDArray[Any]]  # of each row: `hashes`, `small` and `brightness`


def with_groups(
    images: Sequence[Labelled], places: Mapping[bytes, int], index: Index, raw: RawDataset
) -> tuple[Labelled, ...]:
    """Return images with the key of their group: those linked by near-duplicates, or by a key.

    Args:
        images: of which the keys are replaced.
        places: the row of each in the shards, by the sha256 of its file.
        index: what is known of the rows.
        raw: the dataset whose shards have been written.
    """
    there, rows = raw.shards, rows_of(images, places)
    looks = _looks(index, there, raw.path)
    # Of images that are equal pixel for pixel, the first stands for all.
    readable = index.error[rows] == ""
    sums = index.pixels[rows]
    for at in np.flatnonzero(~readable).tolist():
        sums[at] = np.frombuffer(bytes.fromhex(images[at].sha256), np.uint8)
    sums = sums.view("V32").ravel()
    _, first, standing = np.unique(sums, return_index=True, return_inverse=True)
    shown = np.flatnonzero(readable[first])
    order = shown[np.argsort(rows[first[shown]])]
    chosen = rows[first[order]]
    pixels = Rows(there.paths(raw.path), there.starts, chosen, there.image_shape)

    def read(some: NDArray[np.int64]) -> Thumbnails:
        return thumbnails(_gray(pixels[some]))

    hashes, small, brightness = (looks[name][chosen] for name in _NAMES)
    pairs = near_duplicates(hashes, small, brightness, read)
    links = [order[pairs], *_links([image.key for image in images], standing)]
    group = first_of_group(np.concatenate(links), len(first))[standing]
    return _keyed(images, group)


_NAMES = ("hashes", "small", "brightness")


def _links(keys: Sequence[str], standing: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield pairs of what has the same key already, as a column of the labels may say."""
    seen: dict[str, int] = {}
    pairs = [
        (seen.setdefault(key, at), at) for key, at in zip(keys, standing.tolist(), strict=True)
    ]
    yield np.array(pairs, np.int64).reshape(-1, 2)


def _keyed(images: Sequence[Labelled], group: NDArray[np.int64]) -> tuple[Labelled, ...]:
    members: dict[int, set[str]] = {}
    for image, number in zip(images, group.tolist(), strict=True):
        members.setdefault(number, set()).add(image.sha256)
    keys = {
        number: next(iter(some)) if len(some) == 1 else f"{NEAR_DUPLICATES}{min(some)}"
        for number, some in members.items()
    }
    return tuple(
        replace(image, key=keys[number])
        for image, number in zip(images, group.tolist(), strict=True)
    )


def _looks(index: Index, there: ShardList, place: Path) -> Looks:
    """Return what near-duplicates are found by; what is kept of a shard is not computed again."""
    memory = ShardMemory("looks", similar.__file__)
    edges = list(pairwise(there.starts.tolist()))
    sums = [[one.tobytes() for one in index.pixels[a:b]] for a, b in edges]
    found = [memory.load(some) for some in sums]
    missing = [n for n, known in enumerate(found) if known is None]
    paths = there.paths(place)
    pieces = [
        [(paths[n], at) for at in range(0, there.shards[n].rows, ROWS_AT_ONCE)] for n in missing
    ]
    many = sum(there.shards[n].rows for n in missing) >= MANY_ROWS
    made = spread(look_at, (piece for some in pieces for piece in some), many)
    for n, some in zip(missing, pieces, strict=True):
        found[n] = known = _joined(list(islice(made, len(some))))
        memory.save(sums[n], known)
    memory.forget_old()
    return _joined([known for known in found if known is not None])


def look_at(piece: tuple[Path, int]) -> Looks:
    """Compute the hashes of some rows of a shard."""
    path, start = piece
    images = np.asarray(read_array(path)[start : start + ROWS_AT_ONCE])
    gray = _gray(images)
    return {
        "hashes": dhash(gray),
        "small": coarse(gray),
        "brightness": images.reshape(len(images), -1).mean(axis=1),
    }


def _gray(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    gray: NDArray[np.float64] = images.sum(axis=3, dtype=np.float64)
    return gray


def _joined(parts: Sequence[Looks]) -> Looks:
    return {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}
