"""Images of a folder or archive -> rows of arrays on disk, decoded in parallel."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Images, Split
from pipeline.content import Caps
from pipeline.errors import ImageError
from pipeline.files import atomic
from pipeline.folders import folder_entries
from pipeline.images import read_image, to_array
from pipeline.progress import bar

# What one task decodes: enough to be worth its overhead, few enough to bound memory.
TASK_IMAGES = 64
TASK_BYTES = 1 << 23
Item = tuple[Split, int, bytes]  # where the image goes: split and row, and what its file holds


class Facts:
    """What `files.parquet` says of the images of one split.

    Attributes:
        file: names, in the order of the rows.
        height: in the file, (n,); 0 where not known, as is width.
        width: likewise.
        mode: Pillow's.
        error: why an image could not be decoded; empty where it could.
    """

    def __init__(self, file: list[str]) -> None:
        self.file = file
        self.height: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.width: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.mode, self.error = [""] * len(file), [""] * len(file)


class _Packer:
    """The open arrays of all splits and the facts beside them."""

    def __init__(self, x: dict[Split, Images], facts: dict[Split, Facts]) -> None:
        self.x, self.facts = x, facts

    def decode(self, items: list[Item]) -> int:
        """Decode images into their rows; return how many there were."""
        for split, row, data in items:
            facts = self.facts[split]
            try:
                image = read_image(data)
                facts.height[row], facts.width[row] = image.height, image.width
                facts.mode[row] = image.mode
                self.x[split][row] = to_array(image, self.x[split].shape[1:])
            except ImageError as error:
                facts.error[row] = str(error)
        return len(items)

    def fail(self, split: Split, row: int, error: ImageError) -> None:
        """Note that a file could not even be read."""
        self.facts[split].error[row] = str(error)


def pack(
    source: Path,
    splits: dict[Split, list[tuple[str, int]]],
    output: Path,
    image_shape: tuple[int, int, int],
    caps: Caps | None = None,
    progress: bool = True,
) -> tuple[dict[Split, Facts], str]:
    """Decode the images of a folder or archive into `x_<split>.npy`.

    Args:
        source: the directory or archive.
        splits: names and labels of the images, in the order of the rows.
        output: the folder of the arrays.
        image_shape: height, width, channels.
        caps: the most that is taken out of an archive.
        progress: whether to show a bar.

    Returns:
        What became of each image, and a sha256 over names and bytes of all.

    Raises:
        ArchiveError: the archive is damaged or hostile.
        ArtifactError: the arrays cannot be written.
    """
    facts = {split: Facts([name for name, _ in files]) for split, files in splits.items()}
    total = sum(len(files) for files in splits.values())
    digest = hashlib.sha256()
    with ExitStack() as stack:
        x: dict[Split, Images] = {}
        for split, files in splits.items():
            part = stack.enter_context(atomic(output / f"x_{split}.npy"))
            x[split] = _create(part, (len(files), *image_shape))
        packer = _Packer(x, facts)
        advance = stack.enter_context(bar("decode images", total, progress))
        for count in _in_parallel(packer, _items(source, packer, caps, digest)):
            advance(count)
    return facts, digest.hexdigest()


def _create(path: Path, shape: tuple[int, ...]) -> Images:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        # A full disk is an error here; found while writing to the map, it kills the process.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _items(
    source: Path, packer: _Packer, caps: Caps | None, digest: "hashlib._Hash"
) -> Iterator[Item]:
    rows: dict[str, tuple[Split, int]] = {
        name: (split, row)
        for split, facts in packer.facts.items()
        for row, name in enumerate(facts.file)
    }
    for entry in folder_entries(source, caps):
        if (place := rows.pop(entry.name, None)) is None:
            continue
        try:
            data = entry.read()
        except ImageError as error:
            packer.fail(*place, error)
            continue
        digest.update(f"{entry.name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
        yield *place, data
    for split, row in rows.values():
        packer.fail(split, row, ImageError("vanished while it was read"))


def _in_parallel(packer: _Packer, items: Iterable[Item]) -> Iterator[int]:
    workers = min(os.cpu_count() or 1, 16)
    running: deque[Future[int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for task in _tasks(items):
            running.append(pool.submit(packer.decode, task))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _tasks(items: Iterable[Item]) -> Iterator[list[Item]]:
    task: list[Item] = []
    size = 0
    for item in items:
        task.append(item)
        size += len(item[2])
        if len(task) >= TASK_IMAGES or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task
