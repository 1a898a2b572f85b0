"""The images of a training: in which order, and held on the device or read chunk by chunk."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels, Pixels, Vectors
from pipeline.artifacts.shards import Rows
from pipeline.models.recipes import Augmentation
from pipeline.training.backends.steps import steps
from pipeline.training.backends.sums import ALIGNMENT, Indices, Mirrored

# Share of the free memory that the images may take; a step needs memory too, and so do others.
SHARE_OF_MEMORY = 0.5
BYTES_PER_CHUNK = 2**26
CGROUP = Path("/sys/fs/cgroup")

# Waits for the images, and returns images, labels and the indices of the batches among them.
Prefetched = Callable[[], tuple[Any, Any, Indices]]


def order(
    seed: int,
    epoch: int,
    images: int,
    augmentation: Augmentation,
    balanced: Labels | None = None,
) -> tuple[Indices, Mirrored]:
    """Return the order in which an epoch sees the images, and which of them are mirrored.

    Args:
        seed: seeds the order, together with the epoch.
        epoch: counted from 1.
        images: the number of images.
        augmentation: says whether images are mirrored at random or in turn.
        balanced: the labels of the images, if the epoch is to have as many of each class; every
            class has one.

    Returns:
        Indices and mirrored, both (images,), in the same order.
    """
    draw = np.random.default_rng((seed, epoch))
    indices, turns = draw.permutation(images).astype(np.int32), np.full(images, epoch)
    if balanced is not None:
        drawn, turns = _equally_many(seed, epoch, balanced)
        indices, turns = drawn[indices], turns[indices]
    if augmentation.flip == "alternating":
        at_first = np.random.default_rng((seed, 0)).random(images) < 0.5
        return indices, at_first[indices] ^ (turns % 2 == 1)
    return indices, draw.random(images) < 0.5


def _equally_many(seed: int, epoch: int, labels: Labels) -> tuple[Indices, NDArray[np.int64]]:
    """Return images for an epoch, of every class equally many, and how often each had its turn.

    The classes take turns, in one sequence through all epochs, and so do the images of a class, in
    a new order each time that all had theirs. So none is left out for longer than it must be.
    """
    num_classes = int(labels.max()) + 1
    places = np.arange((epoch - 1) * len(labels), epoch * len(labels))
    classes, turns = places % num_classes, places // num_classes
    indices = np.empty(len(labels), np.int32)
    for label in range(num_classes):
        members, here = np.flatnonzero(labels == label), np.flatnonzero(classes == label)
        rounds, positions = np.divmod(turns[here], len(members))
        for number in np.unique(rounds):
            now = rounds == number
            # The last 1 keeps it apart from the (seed, epoch) of `order`.
            shuffled = np.random.default_rng((seed, label, int(number), 1)).permutation(members)
            indices[here[now]] = shuffled[positions[now]]
        turns[here] = rounds
    return indices, turns


class Feed(Protocol):
    """Images and labels on the device.

    Attributes:
        most_images: how many may be asked for at once.
    """

    most_images: int

    def prefetch(self, indices: Indices) -> Prefetched:
        """Start to read the images with these indices; call the result to wait for them."""

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Yield all images and labels in order."""


def feed(x: Images | Vectors, y: Labels) -> Feed:
    """Hold the arrays on the device if they fit, else read them chunk by chunk."""
    if x.nbytes <= SHARE_OF_MEMORY * memory():
        return Resident(x, y)
    return Streamed(x, y)


def memory() -> int:
    """Return how many bytes of memory are free, on this machine or in this container."""
    free = int(psutil.virtual_memory().available)
    try:
        most = int((CGROUP / "memory.max").read_text())
        return min(free, most - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return free  # no container, or one without a limit


class Resident:
    """Arrays in the memory of the device."""

    def __init__(self, x: Images | Vectors, y: Labels) -> None:
        self.x, self.y = steps().put(_in_memory(x), y)
        self.most_images = len(x)

    def prefetch(self, indices: Indices) -> Prefetched:
        """Return all images: they are there already."""
        return lambda: (self.x, self.y, indices)

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Yield all of them at once."""
        yield self.x, self.y


def _in_memory(x: Images | Vectors) -> Pixels | Vectors:
    """Return images as one array: a file as it is mapped, rows of shards copied."""
    if not isinstance(x, Rows):
        return x
    return x.take(np.arange(len(x)), out=aligned(x.shape))


class Streamed:
    """Arrays in files, read in a thread while the device computes."""

    def __init__(
        self, x: Images | Vectors, y: Labels, bytes_per_chunk: int = BYTES_PER_CHUNK
    ) -> None:
        self.x, self.y = x, y
        self.most_images = min(len(x), max(1, bytes_per_chunk // max(1, x[:1].nbytes)))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def prefetch(self, indices: Indices) -> Prefetched:
        """Read the images in a thread, in the order of the file."""
        future: Future[tuple[Any, Any, Indices]] = self._reader.submit(self._read, indices)
        return future.result

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Yield them in pieces."""
        for start in range(0, len(self.x), self.most_images):
            piece = slice(start, start + self.most_images)
            x: Any = self.x[piece]
            yield steps().put(np.ascontiguousarray(x), self.y[piece])

    def _read(self, indices: Indices) -> tuple[Any, Any, Indices]:
        found, places = np.unique(indices, return_inverse=True)
        # Always the same shape, for which the steps are compiled; no step reads the empty end.
        size = max(self.most_images, len(found))
        x = aligned((size, *self.x.shape[1:]), self.x.dtype)
        y = np.zeros(size, self.y.dtype)
        np.take(self.x, found, axis=0, out=x[: len(found)], mode="clip")
        y[: len(found)] = self.y[found]
        return *steps().put(x, y), places.reshape(indices.shape).astype(np.int32)


def aligned(shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    """Return an empty array that TensorFlow takes without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
