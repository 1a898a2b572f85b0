"""What a format of image datasets is: how it is recognised, and how its files are listed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import PrivateAttr

from pipeline.artifacts.datasets import Split
from pipeline.artifacts.record import Frozen
from pipeline.data.readers.content import Caps


@dataclass(frozen=True)
class Entry:
    """A file or folder inside an archive or directory.

    Attributes:
        name: its path with `/`, relative, a folder's with a trailing `/`.
        read: returns its bytes; of an archive's entry only until the next entry is asked for.
        label: the name of its class, where the format says it.
        split: likewise.
        group: likewise; empty for none.
        columns: what a table says of it besides; None for nothing.
        file: the path of the file that is read; empty where there is none, as in an archive.
        url: where it is fetched from before it is read; empty for what is here.
    """

    name: str
    read: Callable[[], bytes]
    label: str | None = None
    split: Split | None = None
    group: str = ""
    columns: Mapping[str, str] | None = None
    file: str = ""
    url: str = ""


def as_text(name: str) -> str:
    r"""Return a name with `\xe4` for each byte that is not UTF-8, so that it can be stored."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Columns(Frozen):
    """The columns of a table of labels; None: what it is usually called is looked for.

    Attributes:
        file: names of files, relative to the table, URLs, or images as bytes.
        label: names of classes.
        split: `train`, `val` or `test`; what is empty is for training.
        group: images of one group are in one split.
    """

    file: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    _images: Path | None = PrivateAttr(default=None)
    _address: str = PrivateAttr(default="")

    @property
    def images(self) -> Path | None:
        """The folder or archive that the files are in; None: they are beside the table."""
        return self._images

    @property
    def address(self) -> str:
        """Where the table was fetched from, which its files are beside; empty if it was here."""
        return self._address

    def with_images(self, path: Path) -> Self:
        """Return the same for a table whose files are elsewhere."""
        copy = self.model_copy()
        copy._images = path
        return copy

    def with_address(self, address: str) -> Self:
        """Return the same for a table that was fetched from there."""
        copy = self.model_copy()
        copy._address = address
        return copy


@dataclass(frozen=True)
class Reader:
    """A format in which people have their images.

    Attributes:
        name: as messages and docs/datasets.md say it.
        endings: the endings of its files; none where it is a folder.
        recognises: whether what lies at a path is in this format, told by its content.
        entries: lists its files and folders in order, within the caps.
        table: whether it is rows that name images, perhaps by URL.
    """

    name: str
    endings: tuple[str, ...]
    recognises: Callable[[Path], bool]
    entries: Callable[[Path, Caps, Columns], Iterator[Entry]]
    table: bool = False
