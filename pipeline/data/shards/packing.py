"""Images of a folder or archive -> rows of shards on disk, decoded in parallel."""

import hashlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow

from pipeline import images as images_module
from pipeline.artifacts.files import atomic, sha256
from pipeline.artifacts.record import Fit
from pipeline.artifacts.shards import INDEX, SHARDS, ShardList
from pipeline.data.layout import Labelled
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import prefetched
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.readers import entries
from pipeline.data.shards.arrangement import arrange
from pipeline.data.shards.index import Earlier, Index
from pipeline.data.shards.writing import SharedArray, create, keep, move
from pipeline.errors import ImageError
from pipeline.images import read_image, to_array
from pipeline.parallel import spread
from pipeline.sources.progress import bar

# Images per task: enough to be worth its overhead, few enough to bound memory.
TASK_IMAGES = 256
TASK_BYTES = 1 << 23
# From this many on, processes are worth their start.
MANY_IMAGES = 30_000


class Item(NamedTuple):
    """An image to decode: its shard, its row counted through all shards, what its file holds."""

    shard: SharedArray
    row: int
    data: bytes


class Decoded(NamedTuple):
    """The outcome of one image.

    Attributes:
        row: counted through all shards.
        error: why it could not be decoded: its pixels are zero then.
        pixels: the sha256 of its pixels.
    """

    row: int
    height: int
    width: int
    mode: str
    error: str
    pixels: bytes


@dataclass(frozen=True)
class Source:
    """Where images are read from: a folder or archive, its columns of labels, and limits."""

    path: Path
    columns: Columns | None = None
    caps: Caps | None = None

    def entries(self) -> Iterator[Entry]:
        """List what is there."""
        return entries(self.path, self.caps, self.columns)

    def named(self, wanted: Container[str]) -> Iterator[Entry]:
        """List the entries of these names; those of a folder are on their way from disk."""
        found = (entry for entry in self.entries() if entry.name in wanted)
        return prefetched(self.path, found) if self.path.is_dir() else found


def pack(
    source: Source,
    images: Iterable[Labelled],
    output: Path,
    image_shape: tuple[int, int, int],
    fit: Fit,
    earlier: Earlier,
    progress: bool = True,
    forgotten: Container[bytes] = (),
) -> tuple[Index, dict[bytes, int]]:
    """Put the images of a folder or archive into shards; those that are in one stay there.

    Args:
        source: where they are read from.
        images: in the order in which new ones are put into shards.
        output: the folder of the shards; gets `shards.json` and `shards.parquet` too.
        image_shape: height, width, channels.
        fit: how images are resized to it.
        earlier: the shards that are there already.
        progress: whether to show a bar.
        forgotten: contents whose pixels must not stay in earlier shards.

    Returns:
        What is known of the images in the shards, and the row of each by the sha256 of its file.

    Raises:
        ArchiveError: the archive is damaged or hostile.
        ArtifactError: the shards cannot be written.
        WorkerError: a process that decoded images died.
    """
    names: dict[bytes, str] = {}
    for image in images:
        names.setdefault(bytes.fromhex(image.sha256), image.name)
    made = made_by(image_shape, fit)
    plan = arrange(earlier, list(names), image_shape, made, forgotten)
    there = ShardList(shards=plan.shards, image_shape=image_shape, made_by=made)
    index = Index.blank(int(there.starts[-1]))
    starts = there.starts[len(plan.kept) :].tolist()
    keep(earlier, plan, index, output)
    with ExitStack() as stack:
        shards = []
        for shard, first in zip(plan.written, starts, strict=False):
            part = stack.enter_context(atomic(output / shard.name))
            shards.append(create(part, first, shard.rows, image_shape, fit))
        move(earlier, plan, index, shards)
        wanted = {
            names[content]: row for row, content in enumerate(plan.new, starts[0] + len(plan.moved))
        }
        for content, row in zip(plan.new, wanted.values(), strict=True):
            index.content[row] = np.frombuffer(content, np.uint8)
        many = len(wanted) >= MANY_IMAGES
        advance = stack.enter_context(bar("decode images", len(wanted), progress))
        tasks = _tasks(_items(source, wanted, shards, index)) if wanted else iter(())
        for made_now in stack.enter_context(closing(spread(decode, tasks, many))):
            for one in made_now:
                index.height[one.row], index.width[one.row] = one.height, one.width
                index.mode[one.row], index.error[one.row] = one.mode, one.error
                index.pixels[one.row] = np.frombuffer(one.pixels, np.uint8)
            advance(len(made_now))
    index.save(output / INDEX)
    there.save(output / SHARDS)
    return index, plan.rows


def rows_of(images: Iterable[Labelled], places: Mapping[bytes, int]) -> NDArray[np.int64]:
    """Return the row of each image, given that of each content."""
    return np.array([places[bytes.fromhex(image.sha256)] for image in images], np.int64)


def made_by(image_shape: tuple[int, int, int], fit: Fit) -> str:
    """Return what the pixels of an image depend on besides its file."""
    code = sha256(Path(images_module.__file__))
    return f"{'x'.join(map(str, image_shape))} {fit}, Pillow {pillow}, images.py {code[:16]}"


def decode(items: list[Item]) -> list[Decoded]:
    """Decode images into their rows, and return the outcome of each."""
    made: list[Decoded] = []
    with ExitStack() as stack:
        files = {
            path: stack.enter_context(path.open("r+b", buffering=0))
            for path in {item.shard.path for item in items}
        }
        for shard, row, data in items:
            height, width, mode, error = 0, 0, "", ""
            pixels = np.zeros(shard.shape, np.uint8)
            try:
                image = read_image(data)
                height, width, mode = image.height, image.width, image.mode
                pixels = to_array(image, shard.shape, shard.fit)
                place = shard.offset + (row - shard.first) * pixels.nbytes
                # Not a memory map, whose pages would count as memory of this process.
                os.pwrite(files[shard.path].fileno(), pixels.data, place)
            except ImageError as reason:
                error = str(reason)
            digest = hashlib.sha256(pixels.tobytes()).digest()
            made.append(Decoded(row, height, width, mode, error, digest))
    return made


def _items(
    source: Source, wanted: dict[str, int], shards: Sequence[SharedArray], index: Index
) -> Iterator[Item]:
    """Read the images of these names, each with its row; note which cannot be read."""
    firsts = np.array([shard.first for shard in shards])
    for entry in source.named(wanted):
        if (row := wanted.pop(entry.name, None)) is None:
            continue
        try:
            data = entry.read()
        except ImageError as error:
            _unread(index, row, str(error), shards[0].shape)
            continue
        yield Item(shards[int(np.searchsorted(firsts, row, "right")) - 1], row, data)
    for row in wanted.values():
        _unread(index, row, "vanished while it was read", shards[0].shape)


def _unread(index: Index, row: int, reason: str, image_shape: tuple[int, int, int]) -> None:
    """Note why a file could not be read; without its content, it is tried again next time."""
    zeros = hashlib.sha256(bytes(int(np.prod(image_shape)))).digest()
    index.error[row], index.content[row] = reason, 0
    index.pixels[row] = np.frombuffer(zeros, np.uint8)


def _tasks(items: Iterable[Item]) -> Iterator[list[Item]]:
    task: list[Item] = []
    size = 0
    for item in items:
        task.append(item)
        size += len(item.data)
        if len(task) >= TASK_IMAGES or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task
