"""The images of a source: their names, their content as a hash, and what is ignored."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath

from pipeline.artifacts.datasets import NO_ENDING, Split
from pipeline.artifacts.local_cache import Digests
from pipeline.data.readers.reader import Entry
from pipeline.errors import DatasetError, ImageError
from pipeline.images import has_image_ending

# What systems and tools put into folders: thumbnails, trash, previews.
SYSTEM_FOLDERS = frozenset(
    {
        *("__MACOSX", "@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot"),
        *("$RECYCLE.BIN", "System Volume Information", "lost+found", "RECYCLER"),
    }
)
SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of a source.

    Attributes:
        name: its path within the source.
        sha256: the sha256 of its file; of its name where it cannot be read.
        label: the name of its class, where the format says it.
        split: where the format says it.
        group: images of one group are in one split; empty for none.
        columns: what a table says of it besides; None for nothing.
    """

    name: str
    sha256: str
    label: str | None = None
    split: Split | None = None
    group: str = ""
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Listing:
    """All images of a source.

    Attributes:
        folders: all folders, also those without images.
        ignored: how many files are not read, by ending or system folder.
    """

    images: tuple[Listed, ...]
    folders: tuple[tuple[str, ...], ...]
    ignored: dict[str, int]

    def without(self, forgotten: Set[str]) -> "Listing":
        """Return the same without images, given by the sha256 of their files."""
        if not forgotten:
            return self
        images = tuple(image for image in self.images if image.sha256 not in forgotten)
        return replace(self, images=images)


def is_system(name: str) -> str | None:
    """Return the part of a path that a system or tool has made, or None."""
    folder, _, file = name.rstrip("/").rpartition("/")
    return _system_folder(folder) or _system_part(file)


@lru_cache
def _system_folder(folder: str) -> str | None:
    """Return the same of a folder, which many images lie in."""
    return next((kind for part in parts_of(folder) if (kind := _system_part(part))), None)


def _system_part(part: str) -> str | None:
    if part in SYSTEM_FOLDERS or part in SYSTEM_FILES:
        return part
    return "hidden" if part.startswith(".") and part != "." else None


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a relative path, as `PurePosixPath.parts` in a tenth of the time."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


def is_image(name: str) -> bool:
    """Return whether a path is that of an image, and not of what a system or tool has made."""
    return has_image_ending(name) and not is_system(name)


def list_images(
    entries: Iterable[Entry],
    group: re.Pattern[str] | None = None,
    digests: Digests | None = None,
) -> Listing:
    """Hash the images of a source; those whose hash is remembered are not read.

    Args:
        entries: what a reader lists.
        group: finds in a name the group `group` of the image, where the entry has none.
        digests: what is remembered of files.

    Raises:
        DatasetError: the pattern does not match a name.
    """
    images: list[Listed] = []
    folders: set[tuple[str, ...]] = set()
    ignored: Counter[str] = Counter()
    for entry in entries:
        if kind := is_system(entry.name):
            ignored[kind] += not entry.name.endswith("/")
        elif entry.name.endswith("/"):
            folders.add(parts_of(entry.name))
        elif entry.label is None and not has_image_ending(entry.name):
            ignored[PurePosixPath(entry.name).suffix.lower() or NO_ENDING] += 1
            folders.add(parts_of(entry.name)[:-1])
        else:
            images.append(_listed(entry, group, digests))
    return Listing(tuple(images), tuple(sorted(folders)), {k: n for k, n in ignored.items() if n})


def _listed(entry: Entry, pattern: re.Pattern[str] | None, digests: Digests | None) -> Listed:
    group = entry.group
    if pattern and not group:
        match = pattern.search(entry.name)
        if not match:
            raise DatasetError(
                f"the pattern of `group`, {pattern.pattern!r}, does not match {entry.name!r}"
            )
        group = match["group"]
    try:
        content = _content(entry, digests)
    except ImageError:  # named when it is decoded
        content = hashlib.sha256(entry.name.encode(errors="surrogateescape")).hexdigest()
    return Listed(entry.name, content, entry.label, entry.split, group, entry.columns)


def _content(entry: Entry, digests: Digests | None) -> str:
    if digests is None or not entry.file:
        return hashlib.sha256(entry.read()).hexdigest()
    known = digests.look_up(entry.file)
    if not known:
        known = hashlib.sha256(entry.read()).hexdigest()
        digests.remember(entry.file, known)
    return known
