"""The files of shards: made in full length, filled row by row, and never written to again."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts.files import atomic
from pipeline.artifacts.record import Fit
from pipeline.artifacts.shards import Rows
from pipeline.data.shards.arrangement import Arrangement
from pipeline.data.shards.index import Earlier, Index

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class SharedArray:
    """A `.npy` file whose rows are written by several processes.

    Attributes:
        offset: bytes before the first row.
        first: its first row, counted through all shards.
        rows: how many there are.
        shape: the shape of one row.
        fit: how images are resized to it.
    """

    path: Path
    offset: int
    first: int
    rows: int
    shape: tuple[int, int, int]
    fit: Fit


def create(
    path: Path, first: int, rows: int, image_shape: tuple[int, int, int], fit: Fit
) -> SharedArray:
    """Make a file of zeros for the rows of a shard."""
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        # Reserved now, so that a full disk is an error at once and not after an hour.
        os.posix_fallocate(file.fileno(), 0, file.tell() + rows * int(np.prod(image_shape)))
        return SharedArray(path, file.tell(), first, rows, image_shape, fit)


def keep(earlier: Earlier, plan: Arrangement, index: Index, output: Path) -> None:
    """Link the shards that stay into a folder, or copy them where that is not possible."""
    first = 0
    for n in plan.kept:
        target = output / earlier.shards[n].name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(earlier.paths[n].resolve())
        except OSError:
            with atomic(target) as part:
                shutil.copyfile(earlier.paths[n], part)
        count = earlier.shards[n].rows
        start = int(earlier.starts[n])
        index.put(slice(first, first + count), earlier.index.at(slice(start, start + count)))
        first += count


def move(earlier: Earlier, plan: Arrangement, index: Index, shards: Sequence[SharedArray]) -> None:
    """Copy rows of earlier shards to the first rows of the new ones."""
    done, count = 0, len(plan.moved)
    for shard in shards:
        if done == count:
            return
        pixels = Rows(earlier.paths, earlier.starts, plan.moved, shard.shape)
        mine = min(count - done, shard.rows)
        with shard.path.open("r+b") as file:
            file.seek(shard.offset)
            for start in range(done, done + mine, ROWS_AT_ONCE):
                file.write(pixels[start : min(start + ROWS_AT_ONCE, done + mine)].data)
        its = slice(shard.first, shard.first + mine)
        index.put(its, earlier.index.at(plan.moved[done : done + mine]))
        done += mine
