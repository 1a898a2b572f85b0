"""Images that nearly repeat one another: perceptual hashes, and pairs that are close by them.

The hash finds candidates; their pixels decide. docs/datasets.md says how the limits were chosen.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Bits of the hash that near-duplicates may differ in.
MOST_BITS = 3
# The most that two thumbnails may differ in the mean, in standard deviations of their pixels.
MOST_DIFFERENCE = 0.03
# Coarse thumbnails are in such parts of a standard deviation.
STEPS = 32
# In the order of brightness, how many of the images that share part of a hash are looked at.
NEIGHBOURS = 128
PAIRS_AT_ONCE = 2**14

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (n, 2), the lower row first
Thumbnails = NDArray[np.float32]  # (n, pixels), each of mean 0 and standard deviation 1
Coarse = NDArray[np.int8]  # (n, pixels)


def dhash(gray: NDArray[np.float64]) -> Hashes:
    """Return the difference hash of images: near-equal ones differ in few of its 64 bits.

    An image is averaged to 8 rows of 9 values; each bit says whether a value is less than its
    right neighbour. See Neal Krawetz, "Kind of Like That", 2013.

    Args:
        gray: (n, height, width), whole numbers.
    """
    # Whole numbers throughout, so that no rounding decides a bit.
    small = _summed(gray, 8, 9)
    bits = (small[:, :, :-1] < small[:, :, 1:]).reshape(len(gray), 64)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()


def thumbnails(gray: NDArray[np.float64], side: int = 16) -> Thumbnails:
    """Return images averaged to a few pixels, of equal brightness and contrast.

    Args:
        gray: (n, height, width); a flat image gives zeros.
        side: of the thumbnail, in pixels.
    """
    flat = _summed(gray, side, side).reshape(len(gray), side * side)
    flat = flat - flat.mean(axis=1, keepdims=True)
    deviation = flat.std(axis=1, keepdims=True)
    made: Thumbnails = (flat / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    return made


def coarse(gray: NDArray[np.float64]) -> Coarse:
    """Return thumbnails of 8x8 in whole numbers: of a million images they fit in memory."""
    return np.clip(np.rint(STEPS * thumbnails(gray, 8)), -127, 127).astype(np.int8)


def alike(a: Thumbnails, b: Thumbnails) -> NDArray[np.bool_]:
    """Return which thumbnails differ so little that they are of one picture, row by row."""
    same: NDArray[np.bool_] = np.abs(a - b).mean(axis=-1) <= MOST_DIFFERENCE
    return same & a.any(axis=-1)


def near_duplicates(
    hashes: Hashes,
    small: Coarse,
    brightness: NDArray[np.float64],
    read: Callable[[Rows], Thumbnails],
) -> Pairs:
    """Find the pairs of images that nearly repeat one another.

    Time and memory grow with the number of images, and not with that of the pairs: where many
    images share a part of the hash, those of the most similar brightness are compared.

    Args:
        hashes: of each image, (n,).
        small: of each image, (n, pixels).
        brightness: the mean of its pixels, (n,).
        read: returns the thumbnails of images, asked for by ascending row.

    Returns:
        Pairs of rows, sorted.
    """
    found = [np.empty((0, 2), np.int64)]
    for close in _close(hashes, brightness):
        for start in range(0, len(close), PAIRS_AT_ONCE):
            part = close[start : start + PAIRS_AT_ONCE]
            apart = np.abs(small[part[:, 0]].astype(np.int16) - small[part[:, 1]])
            found.append(part[apart.mean(axis=1) <= STEPS * MOST_DIFFERENCE + 1])
    pairs = np.unique(np.concatenate(found), axis=0)
    same = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        rows, places = np.unique(part, return_inverse=True)
        shown, (a, b) = read(rows), places.reshape(-1, 2).T
        same.append(part[alike(shown[a], shown[b])])
    return np.concatenate(same)


def _close(hashes: Hashes, brightness: NDArray[np.float64]) -> Iterator[Pairs]:
    """Yield pairs of rows whose hashes differ in at most three bits.

    Of four parts of such hashes at least one is equal, so each part is sorted in turn, and within
    it by brightness. Flat images have hashes of equal bits, which say nothing.
    """
    told = np.flatnonzero((hashes != 0) & (hashes != ~np.uint64(0)))
    bits = np.unpackbits(hashes[told].astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    for part in range(MOST_BITS + 1):
        # Every fourth bit, so that no part is of rows that are background in most images.
        keys = np.packbits(bits[:, part :: MOST_BITS + 1], axis=1).view(">u2").ravel()
        order = np.lexsort((brightness[told], keys))
        rows, keys = told[order], keys[order]
        ordered, first = hashes[rows], np.arange(len(rows))
        for step in range(1, NEIGHBOURS + 1):
            first = first[: np.searchsorted(first, len(rows) - step)]
            first = first[keys[first] == keys[first + step]]
            apart = np.bitwise_count(ordered[first] ^ ordered[first + step])
            some = first[apart <= MOST_BITS]
            yield np.sort(np.stack([rows[some], rows[some + step]], axis=1), axis=1)


def first_of_group(pairs: Pairs, count: int) -> Rows:
    """Return for each image the lowest row of those that it is linked to by pairs, (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.bool_), pairs.T), shape=(count, count))
    _, groups = connected_components(links, directed=False)
    _, first = np.unique(groups, return_index=True)
    lowest: Rows = first[groups]
    return lowest


def _summed(gray: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Sum the pixels of images in cells: (n, rows, columns)."""
    _, height, width = gray.shape
    # Many small products: on a busy machine threads make one large product slower.
    small: NDArray[np.float64] = _overlaps(height, rows) @ gray @ _overlaps(width, columns).T
    return small


def _overlaps(length: int, cells: int) -> NDArray[np.float64]:
    """How much of each pixel lies in each cell when both divide the same line: (cells, length)."""
    pixels, edges = np.arange(length + 1) * cells, np.arange(cells + 1) * length
    right = np.minimum(edges[1:, None], pixels[None, 1:])
    left = np.maximum(edges[:-1, None], pixels[None, :-1])
    overlaps: NDArray[np.float64] = np.maximum(right - left, 0).astype(np.float64)
    return overlaps
