"""What a format of image datasets is: how it is recognised, and how its files are listed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.readers.content import Caps


@dataclass(frozen=True)
class Entry:
    """A file or folder inside an archive or directory.

    Attributes:
        name: its path with `/`, relative, a folder's with a trailing `/`.
        read: returns its bytes; of an archive's entry only until the next entry is asked for.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Reader:
    """A format in which people have their images.

    Attributes:
        name: as messages and docs/datasets.md say it.
        endings: the endings of its files; none where it is a folder.
        recognises: whether what lies at a path is in this format, told by its content.
        entries: lists its files and folders in order, within the caps.
    """

    name: str
    endings: tuple[str, ...]
    recognises: Callable[[Path], bool]
    entries: Callable[[Path, Caps], Iterator[Entry]]
