"""What is measured of the pixels of images: brightness, checksums, histograms."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import read_array

# Of brightness, per channel: fine enough to see a shift of one hundredth of the range.
HISTOGRAM_BINS = 64
# Pixels that are measured at once: as eight-byte numbers they stay in the processor's cache.
BLOCK_PIXELS = 2**16

Histogram = NDArray[np.int64]  # (channels, HISTOGRAM_BINS)
Piece = tuple[Path, slice, NDArray[np.bool_]]  # a file, some of its rows, which are readable


@dataclass(frozen=True)
class Measured:
    """What was measured of n images, and of the readable ones together.

    Attributes:
        mean: the mean of the pixels of each image, (n,); std, min and max likewise.
        sha256: the sha256 of their bytes, (n, 32).
        dhash: see `dhash`, big-endian, (n, 8).
        histogram: counts of pixel values by channel.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    sha256: NDArray[np.uint8]
    dhash: NDArray[np.uint8]
    histogram: Histogram

    def at(self, rows: NDArray[np.int64]) -> "Measured":
        """Return the measures of some of the images, with the histogram of all."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _EACH})


def joined(parts: Iterable[Measured]) -> Measured:
    """Return the measures of the images of several parts."""
    parts = list(parts)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _EACH}
    return Measured(**columns, histogram=np.sum([part.histogram for part in parts], axis=0))


_EACH = tuple(field.name for field in fields(Measured) if field.name != "histogram")


def measure_rows(piece: Piece) -> list[Measured]:
    """Measure some rows of a `.npy` file of images, block by block."""
    path, rows, readable = piece
    # Mapped for these rows only: the pages of a map count as memory of this process.
    x = np.asarray(read_array(path)[rows])
    images = x.reshape(*(*x.shape, 1, 1)[:3], int(np.prod(x.shape[3:])))
    size = max(1, BLOCK_PIXELS // max(1, images[:1].size))
    blocks = [slice(start, start + size) for start in range(0, max(1, len(images)), size)]
    return [measure(images[block], readable[block]) for block in blocks]


def measure(images: NDArray[Any], readable: NDArray[np.bool_]) -> Measured:
    """Measure images.

    Args:
        images: (n, height, width, channels).
        readable: which of them count in the histogram, (n,).
    """
    pixels = images.astype(np.float64)
    flat = pixels.reshape(len(pixels), -1)
    shas = b"".join(hashlib.sha256(image.tobytes()).digest() for image in images)
    # As pixels.sum(axis=3), in a tenth of the time.
    gray = reduce(np.add, np.moveaxis(pixels, 3, 0))
    hashes = dhash(gray).astype(">u8")
    return Measured(
        mean=flat.mean(axis=1),
        std=flat.std(axis=1),
        min=images.min(axis=(1, 2, 3)).astype(np.float64),
        max=images.max(axis=(1, 2, 3)).astype(np.float64),
        sha256=np.frombuffer(shas, np.uint8).reshape(-1, 32),
        dhash=hashes.view(np.uint8).reshape(-1, 8),
        histogram=histogram(images[readable]),
    )


def histogram(images: NDArray[Any]) -> Histogram:
    """Count the values of the pixels of images (n, height, width, channels), by channel."""
    bins = np.clip(images, 0, 255).astype(np.uint8) // (256 // HISTOGRAM_BINS)
    channels = range(images.shape[3])
    return np.stack([np.bincount(bins[..., c].ravel(), minlength=HISTOGRAM_BINS) for c in channels])


def dhash(gray: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the difference hash of images: near-equal ones differ in few of its 64 bits.

    An image is averaged to 8 rows of 9 values; each bit says whether a value is less than its
    right neighbour. See Neal Krawetz, "Kind of Like That", 2013.

    Args:
        gray: (n, height, width), whole numbers.
    """
    _, height, width = gray.shape
    # Whole numbers throughout, so that no rounding decides a bit.
    small = _overlaps(height, 8) @ gray @ _overlaps(width, 9).T
    bits = (small[:, :, :-1] < small[:, :, 1:]).reshape(len(gray), 64)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()


def _overlaps(length: int, cells: int) -> NDArray[np.float64]:
    """How much of each pixel lies in each cell when both divide the same line: (cells, length)."""
    pixels, edges = np.arange(length + 1) * cells, np.arange(cells + 1) * length
    right = np.minimum(edges[1:, None], pixels[None, 1:])
    left = np.maximum(edges[:-1, None], pixels[None, :-1])
    overlaps: NDArray[np.float64] = np.maximum(right - left, 0).astype(np.float64)
    return overlaps
