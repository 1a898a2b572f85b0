"""Which images of a dataset nearly repeat one another, by what was measured of their pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.similar import Rows, Thumbnails, first_of_group, near_duplicates, thumbnails
from pipeline.validation.pixels import gray_of, with_channels


def first_near_duplicate(
    measured: Mapping[str, NDArray[Any]], splits: Sequence[Any], readable: NDArray[np.bool_]
) -> Rows:
    """Return for each image the first row of its near-duplicates, -1 where it has none.

    Of images that are equal pixel for pixel the first stands for all.

    Args:
        measured: `sha256`, `dhash`, `coarse` and `mean` of each image, as `Measured` has them.
        splits: the images of each split, in the order of the rows.
        readable: which images are, (n,).
    """
    sums = measured["sha256"]
    _, distinct = np.unique(sums.view("V32").ravel(), return_index=True)
    rows = np.sort(distinct[readable[distinct]])
    starts = np.cumsum([0, *map(len, splits)])

    def read(some: Rows) -> Thumbnails:
        wanted = rows[some]
        bounds = np.searchsorted(wanted, starts)
        parts = [
            x[wanted[low:high] - start]
            for x, start, low, high in zip(splits, starts[:-1], bounds, bounds[1:], strict=False)
        ]
        return np.concatenate([thumbnails(gray_of(with_channels(part))) for part in parts])

    hashes = measured["dhash"].view(">u8").ravel().astype(np.uint64)
    pairs = near_duplicates(hashes[rows], measured["coarse"][rows], measured["mean"][rows], read)
    twins = np.full(len(sums), -1, np.int64)
    some = np.unique(pairs)
    twins[rows[some]] = rows[first_of_group(pairs, len(rows))][some]
    return twins
