"""What a training is fed from: arrays that lie on the device, or are read chunk by chunk."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from pipeline.artifacts.datasets import Images, Labels
from pipeline.training.steps import steps
from pipeline.training.totals import ALIGNMENT, Rows

# Of the memory that is free: the rest is for what a step needs, and for everybody else.
SHARE_OF_MEMORY = 0.5
BYTES_PER_CHUNK = 2**26
_CGROUP = Path("/sys/fs/cgroup")

Wait = Callable[[], tuple[Any, Any, Rows]]


class Feed(Protocol):
    """Images and labels, for the functions of `steps`."""

    most_rows: int

    def ask(self, rows: Rows) -> Wait:
        """Begin to bring the images of these rows; what is returned waits for them.

        It gives images and labels on the device, and the rows counted among these.
        """

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Go through all images and labels in order."""


def feed(x: Images, y: Labels) -> Feed:
    """Hold the arrays on the device where they fit, or else read them as they are asked for."""
    if x.nbytes <= SHARE_OF_MEMORY * memory():
        return Resident(x, y)
    return Streamed(x, y)


def memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        most = int((_CGROUP / "memory.max").read_text())
        return min(free, most - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return free  # no container, or one without a limit


class Resident:
    """Arrays that lie on the device."""

    def __init__(self, x: Images, y: Labels) -> None:
        self.x, self.y = steps().put(x, y)
        self.most_rows = len(x)

    def ask(self, rows: Rows) -> Wait:
        """Return what is there."""
        return lambda: (self.x, self.y, rows)

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Give all in one."""
        yield self.x, self.y


class Streamed:
    """Memory-mapped arrays, read in a thread while the device computes."""

    def __init__(self, x: Images, y: Labels, bytes_per_chunk: int = BYTES_PER_CHUNK) -> None:
        self.x, self.y = x, y
        self.most_rows = min(len(x), max(1, bytes_per_chunk // max(1, x[:1].nbytes)))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def ask(self, rows: Rows) -> Wait:
        """Read the images of these rows, in the order in which they lie in the file."""
        future: Future[tuple[Any, Any, Rows]] = self._reader.submit(self._read, rows)
        return future.result

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Give them in pieces."""
        for start in range(0, len(self.x), self.most_rows):
            piece = slice(start, start + self.most_rows)
            yield steps().put(np.ascontiguousarray(self.x[piece]), self.y[piece])

    def _read(self, rows: Rows) -> tuple[Any, Any, Rows]:
        found, places = np.unique(rows, return_inverse=True)
        # Always of one shape, for which the steps may be compiled; what is not filled is not read.
        size = max(self.most_rows, len(found))
        x = aligned((size, *self.x.shape[1:]))
        y = np.zeros(size, self.y.dtype)
        np.take(self.x, found, axis=0, out=x[: len(found)], mode="clip")
        y[: len(found)] = self.y[found]
        return *steps().put(x, y), places.reshape(rows.shape).astype(np.int32)


def aligned(shape: tuple[int, ...]) -> Images:
    """Return an array, not filled, that TensorFlow takes without a copy."""
    size = int(np.prod(shape))
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)
