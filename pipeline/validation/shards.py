"""Measures of images in shards: those of a shard that was measured before are remembered."""

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import similar
from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import read_array
from pipeline.artifacts.shard_memory import ShardMemory
from pipeline.artifacts.shards import INDEX
from pipeline.parallel import spread
from pipeline.validation import pixels
from pipeline.validation.pixels import (
    Histogram,
    Measured,
    Piece,
    histogram,
    joined,
    measure_rows,
)

ROWS_AT_ONCE = 256


def measure_shards(
    raw: RawDataset, counts: NDArray[np.int64], rows_at_once: int, processes: bool
) -> Measured:
    """Measure the images of all shards.

    Args:
        raw: a dataset in shards.
        counts: how often each row of the shards counts in the histogram: 0 where no image has it.
        rows_at_once: how many images are a piece of work.
        processes: whether processes share it.

    Returns:
        The measures of each row.
    """
    there = raw.shards
    paths, starts = there.paths(raw.path), there.starts
    index = pq.read_table(raw.path / INDEX, columns=["pixels"], use_threads=False)["pixels"]
    memory = ShardMemory("measures", pixels.__file__, similar.__file__)
    sums = [index[a:b].to_pylist() for a, b in pairwise(starts.tolist())]
    found = [_known(memory.load(some)) for some in sums]
    missing = [n for n, known in enumerate(found) if known is None]
    pieces = [list(_pieces(paths[n], there.shards[n].rows, rows_at_once)) for n in missing]
    made = spread(measure_rows, (piece for some in pieces for piece in some), processes)
    for n, some in zip(missing, pieces, strict=True):
        parts = [part for piece in islice(made, len(some)) for part in piece]
        found[n] = joined(parts)
        memory.save(sums[n], vars(found[n]))
    memory.forget_old()
    everything = joined([known for known in found if known is not None])
    for n, path in enumerate(paths):
        _weigh(everything.histogram, path, counts[starts[n] : starts[n + 1]])
    return everything


def _weigh(total: Histogram, path: Path, counts: NDArray[np.int64]) -> None:
    """Let each image of a shard count as often as it should, where all of them count once."""
    odd = np.flatnonzero(counts != 1)
    for start in range(0, len(odd), ROWS_AT_ONCE):
        rows = odd[start : start + ROWS_AT_ONCE]
        images = read_array(path)[rows]
        for count in np.unique(counts[rows]):
            total += (count - 1) * histogram(images[counts[rows] == count])


def _pieces(path: Path, rows: int, rows_at_once: int) -> Iterator[Piece]:
    for start in range(0, rows, rows_at_once):
        end = min(rows, start + rows_at_once)
        yield path, slice(start, end), np.ones(end - start, np.bool_)


def _known(stored: dict[str, NDArray[Any]] | None) -> Measured | None:
    return Measured(**stored) if stored else None
