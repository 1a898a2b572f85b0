"""The split and class of each image of a folder, read from the names of the folders."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import DatasetError
from pipeline.images import EXTENSIONS, has_image_ending

SPLITS = ("train", "test")
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
# Names of a validation split, which is drawn from train and not read from a folder.
VALIDATION = ("val", "valid", "validation", "dev")
Folder = tuple[str, ...]  # the parts of its path
Images = dict[Folder, list[str]]  # names of images by the folder that they lie in


@dataclass(frozen=True)
class Layout:
    """What an image folder holds.

    Attributes:
        class_names: sorted.
        splits: for each split (`test` may be missing) the images, sorted by class, then name:
            the full name and the index of its class.
        ignored: the number of files without the extension of an image.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]
    ignored: int


def layout(names: Iterable[str]) -> Layout:
    """Sort the names of an image folder, `<class>/…` or `train|test/<class>/…`.

    A single folder around everything is skipped. The name of a folder ends with `/`.

    Raises:
        DatasetError: there are no images, or fewer than two classes; a class has none; two
            classes differ only by case; train and test differ in classes; an image lies outside.
    """
    images, ignored = _by_folder(names)
    if not any(images.values()):
        raise DatasetError(f"no images found; allowed: {', '.join(EXTENSIONS)}")
    depth = _leading(images)
    splits = _split_names(images, depth)
    classes: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in splits}
    for folder, found in images.items():
        if place := _place(folder, depth, splits):
            classes[place[0]][place[1]] += found
        elif found:
            raise DatasetError(f"image {found[0]!r} lies outside of the class folders")
    return _checked(classes, ignored)


def _by_folder(names: Iterable[str]) -> tuple[Images, int]:
    """Sort the names of images by folder, and count the other files."""
    # A million files lie in few folders: look at each folder once.
    known: dict[str, Folder | None] = {}
    images: Images = defaultdict(list)
    ignored = 0
    for name in names:
        path, _, file = name.rpartition("/")
        if path not in known:
            parts = PurePosixPath(path).parts
            known[path] = None if any(map(_is_litter, parts)) else parts
        folder = known[path]
        if folder is None or _is_litter(file):
            continue
        found = images[folder]
        if has_image_ending(file):
            found.append(name)
        else:
            ignored += bool(file)
    return images, ignored


def _is_litter(part: str) -> bool:
    return part.startswith(".") or part in LITTER


def _tops(images: Images, depth: int) -> set[str]:
    return {folder[depth] for folder in images if len(folder) > depth}


def _leading(images: Images) -> int:
    """Return 1 if a single folder contains all classes or splits, else 0."""
    around = _tops(images, 0)
    direct = any(found and len(folder) < 2 for folder, found in images.items())
    return int(len(around) == 1 and not direct and not around & set(SPLITS))


def _split_names(images: Images, depth: int) -> tuple[str, ...]:
    """Return the splits that are folders, or nothing where the folders are classes."""
    tops = _tops(images, depth)
    other = sorted(tops - set(SPLITS))
    nested = any(
        found and len(folder) > depth + 1 and folder[depth] == "train"
        for folder, found in images.items()
    )
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


def _place(folder: Folder, depth: int, splits: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the split and class of the images in a folder; None if it lies above the classes."""
    inside = folder[depth:]
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
