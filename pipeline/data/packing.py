"""Images of a folder or archive -> rows of arrays on disk, decoded in parallel."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Split
from pipeline.artifacts.files import atomic
from pipeline.artifacts.record import Fit
from pipeline.data.layout import Labelled
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import prefetched
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.readers import entries
from pipeline.data.sources.progress import bar
from pipeline.errors import ImageError
from pipeline.images import read_image, to_array
from pipeline.parallel import spread

# Images per task: enough to be worth its overhead, few enough to bound memory.
TASK_IMAGES = 256
TASK_BYTES = 1 << 23
# From this many on, processes are worth their start.
MANY_IMAGES = 30_000
Item = tuple[Split, int, bytes]  # where the image goes: split and row, and what its file holds


class Decoded(NamedTuple):
    """The outcome of one image: its row, size and mode, or why it could not be decoded."""

    split: Split
    row: int
    height: int
    width: int
    mode: str
    error: str


class SplitFiles:
    """What `files.parquet` says of the images of one split.

    Attributes:
        file: names, in the order of the rows.
        height: in the file, (n,); 0 where not known, as is width.
        width: likewise.
        mode: Pillow's.
        error: why an image could not be decoded; empty where it could.
        key: what decides the split of an image; empty where its dataset does.
        content: the sha256 of the file, or of the pixels where there are no files.
    """

    def __init__(self, file: list[str], key: list[str], content: list[str]) -> None:
        self.file, self.key, self.content = file, key, content
        self.height: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.width: NDArray[np.int32] = np.zeros(len(file), np.int32)
        self.mode, self.error = [""] * len(file), [""] * len(file)


@dataclass(frozen=True)
class SharedArray:
    """A `.npy` file whose rows are written by several processes.

    Attributes:
        offset: bytes before the first row.
        shape: the shape of one row.
        fit: how images are resized to it.
    """

    path: Path
    offset: int
    shape: tuple[int, int, int]
    fit: Fit


def pack(
    source: Path,
    splits: dict[Split, list[Labelled]],
    output: Path,
    image_shape: tuple[int, int, int],
    fit: Fit,
    columns: Columns | None = None,
    caps: Caps | None = None,
    progress: bool = True,
) -> tuple[dict[Split, SplitFiles], str]:
    """Decode the images of a folder or archive into `x_<split>.npy`.

    Args:
        source: the directory or archive.
        splits: the images, in the order of the rows.
        output: the folder of the arrays.
        image_shape: height, width, channels.
        fit: how images are resized to it.
        columns: the columns of a table of labels.
        caps: limits of what is read from an archive.
        progress: whether to show a bar.

    Returns:
        The outcome of each image, and a sha256 over the names and bytes of all.

    Raises:
        ArchiveError: the archive is damaged or hostile.
        ArtifactError: the arrays cannot be written.
        WorkerError: a process that decoded images died.
    """
    described = {
        split: SplitFiles(
            [image.name for image in files],
            [image.key for image in files],
            [image.sha256 for image in files],
        )
        for split, files in splits.items()
    }
    total = sum(len(files) for files in splits.values())
    digest = hashlib.sha256()
    with ExitStack() as stack:
        arrays: dict[Split, SharedArray] = {}
        for split, files in splits.items():
            part = stack.enter_context(atomic(output / f"x_{split}.npy"))
            arrays[split] = _create(part, len(files), image_shape, fit)
        advance = stack.enter_context(bar("decode images", total, progress))
        tasks = _tasks(_items(entries(source, caps, columns), source, described, digest))
        decoded = spread(partial(decode, arrays), tasks, total >= MANY_IMAGES)
        for made in stack.enter_context(closing(decoded)):
            for image in made:
                its, row = described[image.split], image.row
                its.height[row], its.width[row] = image.height, image.width
                its.mode[row], its.error[row] = image.mode, image.error
            advance(len(made))
    return described, digest.hexdigest()


def decode(arrays: dict[Split, SharedArray], items: list[Item]) -> list[Decoded]:
    """Decode images into their rows, and return the outcome of each."""
    made: list[Decoded] = []
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(rows.path.open("r+b", buffering=0))
            for split, rows in arrays.items()
        }
        for split, row, data in items:
            rows, height, width, mode, error = arrays[split], 0, 0, "", ""
            try:
                image = read_image(data)
                height, width, mode = image.height, image.width, image.mode
                pixels = to_array(image, rows.shape, rows.fit)
                # Not a memory map, whose pages would count as memory of this process.
                os.pwrite(files[split].fileno(), pixels.data, rows.offset + row * pixels.nbytes)
            except ImageError as reason:
                error = str(reason)
            made.append(Decoded(split, row, height, width, mode, error))
    return made


def _create(path: Path, count: int, image_shape: tuple[int, int, int], fit: Fit) -> SharedArray:
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *image_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        # Reserved now, so that a full disk is an error at once and not after an hour.
        os.posix_fallocate(file.fileno(), 0, file.tell() + count * int(np.prod(image_shape)))
        return SharedArray(path, file.tell(), image_shape, fit)


def _items(
    found: Iterator[Entry],
    source: Path,
    described: dict[Split, SplitFiles],
    digest: "hashlib._Hash",
) -> Iterator[Item]:
    rows: dict[str, tuple[Split, int]] = {
        name: (split, row)
        for split, each in described.items()
        for row, name in enumerate(each.file)
    }
    for entry in prefetched(source, found) if source.is_dir() else found:
        if (place := rows.pop(entry.name, None)) is None:
            continue
        split, row = place
        try:
            data = entry.read()
        except ImageError as error:
            described[split].error[row] = str(error)
            continue
        digest.update(f"{entry.name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
        yield split, row, data
    for split, row in rows.values():
        described[split].error[row] = "vanished while it was read"


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
