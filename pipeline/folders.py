"""Image folders: which image belongs to which split and class, read off the names alone."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.archives import Entry, entries
from pipeline.content import Caps
from pipeline.errors import DatasetError, ImageError
from pipeline.images import EXTENSIONS

SPLITS = ("train", "test")
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
# Names that say "validation split", which is drawn from train and not read from a folder.
VALIDATION = ("val", "valid", "validation", "dev")


@dataclass(frozen=True)
class Layout:
    """What an image folder holds.

    Attributes:
        class_names: sorted.
        splits: for each split (`test` may be missing) the images, sorted by class, then name:
            the full name and the index of its class.
        ignored: how many files are no images by their extension.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]
    ignored: int


def folder_entries(path: Path, caps: Caps | None = None) -> Iterator[Entry]:
    """Stream the entries of a directory or archive."""
    return _directory(path, caps or Caps()) if path.is_dir() else entries(path, caps)


def _directory(path: Path, caps: Caps) -> Iterator[Entry]:
    """Walk a directory in sorted order; links are followed, each folder once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        subfolders.sort()
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        relative = Path(folder).relative_to(path)
        yield from (Entry(f"{(relative / name).as_posix()}/", bytes) for name in subfolders)
        for name in sorted(files):
            file = Path(folder, name)

            def read(file: Path = file) -> bytes:
                return _read(file, caps)

            yield Entry((relative / name).as_posix(), read)


def _read(file: Path, caps: Caps) -> bytes:
    try:
        if (size := file.stat().st_size) > caps.file_bytes:
            raise ImageError(f"{size:,} bytes are more than the {caps.file_bytes:,} allowed")
        return file.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error


def layout(names: Iterable[str]) -> Layout:
    """Sort the names of an image folder, `<class>/…` or `train|test/<class>/…`.

    One folder around everything is passed over. A folder's name ends with `/`.

    Raises:
        DatasetError: there are no images, or fewer than two classes; a class has none; two
            classes differ only by case; train and test differ in classes; an image lies outside.
    """
    paths = [(name, PurePosixPath(name).parts) for name in names]
    paths = [(name, parts) for name, parts in paths if parts and not _is_litter(parts)]
    images = [item for item in paths if _is_image(item[0])]
    folders = [item for item in paths if item[0].endswith("/") or len(item[1]) > 1]
    if not images:
        raise DatasetError(f"no images found; allowed: {', '.join(sorted(EXTENSIONS))}")
    depth = _leading(images, folders)
    splits = _split_names(images, folders, depth)
    classes: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in splits}
    for name, parts in folders:
        place = _place(name, parts, depth, splits)
        if place:
            found = classes[place[0]][place[1]]
            if _is_image(name):
                found.append(name)
    stray = next((n for n, p in images if not _place(n, p, depth, splits)), None)
    if stray:
        raise DatasetError(f"image {stray!r} lies outside of the class folders")
    return _checked(classes, sum(not n.endswith("/") for n, _ in paths) - len(images))


def _is_litter(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part in LITTER for part in parts)


def _is_image(name: str) -> bool:
    return not name.endswith("/") and PurePosixPath(name).suffix.lower() in EXTENSIONS


def _inside(parts: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the folders that an entry names: a folder's own name included."""
    return parts if name.endswith("/") else parts[:-1]


def _tops(items: list[tuple[str, tuple[str, ...]]], depth: int) -> set[str]:
    return {inside[depth] for n, p in items if len(inside := _inside(p, n)) > depth}


def _leading(
    images: list[tuple[str, tuple[str, ...]]], folders: list[tuple[str, tuple[str, ...]]]
) -> int:
    """Return 1 where one folder lies around all classes or splits, else 0."""
    around = _tops(folders, 0)
    direct = any(len(parts) <= 2 for _, parts in images)
    return int(len(around) == 1 and not direct and not around & set(SPLITS))


def _split_names(
    images: list[tuple[str, tuple[str, ...]]],
    folders: list[tuple[str, tuple[str, ...]]],
    depth: int,
) -> tuple[str, ...]:
    """Return the splits that are folders, or nothing where the folders are classes."""
    tops = _tops(folders, depth)
    other = sorted(tops - set(SPLITS))
    nested = any(parts[depth] == "train" and len(parts) > depth + 2 for _, parts in images)
    if nested and other and other[0].lower() in VALIDATION:
        raise DatasetError(
            f"beside train lies {other[0]!r}: only train and test are read, and the validation "
            "split is drawn from train; move its images there"
        )
    if other or not tops:
        return ("",)
    if not nested:
        raise DatasetError("train holds no images in class folders: train/<class>/<image>")
    return tuple(split for split in SPLITS if split in tops)


def _place(
    name: str, parts: tuple[str, ...], depth: int, splits: tuple[str, ...]
) -> tuple[str, str] | None:
    """Return split and class of an entry, or None where it lies above the classes."""
    inside = _inside(parts, name)[depth:]
    if splits == ("",):
        return ("", inside[0]) if inside else None
    return (inside[0], inside[1]) if len(inside) > 1 else None


def _checked(classes: dict[str, dict[str, list[str]]], ignored: int) -> Layout:
    names = sorted({name for found in classes.values() for name in found})
    for split, found in classes.items():
        empty = sorted(name for name, files in found.items() if not files)
        if empty:
            raise DatasetError(f"{_where(split)} {_some(empty)} without an image")
    _check_case(names)
    if len(classes) == 2:
        _check_same(set(classes["train"]), set(classes["test"]))
    if len(names) < 2:
        raise DatasetError(f"one class only, {names[0]!r}; a classifier needs at least two")
    index = {name: label for label, name in enumerate(names)}
    splits = {
        split or "train": [(file, index[name]) for name in names for file in sorted(found[name])]
        for split, found in classes.items()
    }
    return Layout(tuple(names), splits, ignored)


def _where(split: str) -> str:
    return f"{split} has" if split else "there are"


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"class folders ({shown}{', …' if len(names) > 5 else ''})"


def _check_case(names: list[str]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DatasetError(f"classes {other!r} and {name!r} differ only by case")


def _check_same(train: set[str], test: set[str]) -> None:
    if train != test:
        only = {"train": sorted(train - test), "test": sorted(test - train)}
        reasons = [f"only in {s}: {', '.join(map(repr, n[:5]))}" for s, n in only.items() if n]
        raise DatasetError(f"train and test have different classes; {'; '.join(reasons)}")
