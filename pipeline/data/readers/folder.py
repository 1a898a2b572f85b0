"""A folder of images: its files in sorted order, the next ones already on their way from disk."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from pipeline.data.readers.content import Caps
from pipeline.data.readers.reader import Columns, Entry, as_text
from pipeline.errors import ImageError
from pipeline.images import has_image_ending

# Small files cost a wait for the disk each, unless many are requested at once.
FILES_AHEAD, BYTES_AHEAD = 64, 2**20
CAPS = Caps()
# Entries of a folder that are enough to tell what is in it: there may be a million.
LOOKED_AT = 100


def folder_entries(
    path: Path, caps: Caps = CAPS, columns: Columns | None = None
) -> Iterator[Entry]:
    """Walk a folder in sorted order; links are followed, each folder once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        subfolders.sort()
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        # Text and not paths: there may be a million names.
        relative = Path(folder).relative_to(path).as_posix()
        prefix = "" if relative == "." else f"{as_text(relative)}/"
        yield from (Entry(f"{prefix}{as_text(name)}/", bytes) for name in subfolders)
        for name in sorted(files):
            file = f"{folder}/{name}"
            yield Entry(f"{prefix}{as_text(name)}", partial(read_file, file, caps), file=file)


def read_file(file: str, caps: Caps) -> bytes:
    """Read a file.

    Raises:
        ImageError: it cannot be read, or is too large.
    """
    try:
        with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 (a Path costs as much again)
            if (size := os.fstat(opened.fileno()).st_size) > caps.file_bytes:
                raise ImageError(f"{size:,} bytes are more than the {caps.file_bytes:,} allowed")
            return opened.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error


def holds(path: Path, ending: str) -> bool:
    """Return whether a folder, or one directly in it, has files of an ending; few are looked at."""
    if not path.is_dir():
        return False
    with os.scandir(path) as found:
        top = list(islice(found, LOOKED_AT))
    subfolders = [entry.path for entry in top if entry.is_dir()]
    names = [entry.name for entry in top]
    for folder in subfolders:
        with os.scandir(folder) as found:
            names += [entry.name for entry in islice(found, LOOKED_AT)]
    return any(name.endswith(ending) for name in names)


def prefetched(
    path: Path, found: Iterator[Entry], is_read: Callable[[Entry], bool] = lambda entry: True
) -> Iterator[Entry]:
    """Yield the same entries of a folder, having requested the images among the next ones.

    Args:
        path: the folder.
        found: its entries.
        is_read: whether an image will be read.
    """
    waiting: deque[Entry] = deque()
    for entry in found:
        if has_image_ending(entry.name) and is_read(entry):
            _prefetch(entry.file or f"{path}/{entry.name}")
        waiting.append(entry)
        if len(waiting) > FILES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def _prefetch(file: str) -> None:
    with suppress(OSError):  # reading it will say why
        opened = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(opened, 0, BYTES_AHEAD, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(opened)
