"""The split and class of each image: as its format says, or from the names of its folders."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.artifacts.datasets import Split
from pipeline.data.readers.listing import Listed, Listing
from pipeline.data.readers.splitnames import split_named
from pipeline.errors import DatasetError
from pipeline.images import EXTENSIONS

# Folders of images without a class, which stand beside `train` in many archives.
WITHOUT_CLASS = frozenset({"unlabeled", "unlabelled", "unsup", "pred", "predict", "prediction"})
MOST_NAMED = 5
# With what is put before it, a name has to fit into the 250 characters of a metric in MLflow.
LONGEST_NAME = 150
FOLDERS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image of the dataset.

    Attributes:
        name: in its source.
        label: the index of its class.
        split: that its source puts it in; None where none is said.
        key: its content, or its group: images of one key are in one split.
        sha256: of its file.
    """

    name: str
    label: int
    split: Split | None
    key: str
    sha256: str


@dataclass(frozen=True)
class Layout:
    """What a source of images holds.

    Attributes:
        class_names: sorted.
        images: sorted by split, class and name.
        ignored: files that are not read, by ending or by the system folder that they are in.
    """

    class_names: tuple[str, ...]
    images: tuple[Labelled, ...]
    ignored: dict[str, int]

    def of(self, split: Split | None) -> list[Labelled]:
        """Return the images that the source puts in a split."""
        return [image for image in self.images if image.split == split]


def layout(listing: Listing, ignore: Sequence[str] = ()) -> Layout:
    """Sort images into splits and classes.

    A format that says the class of each image is believed. Otherwise folders say it:
    `<class>/…` or `<split>/<class>/…`; folders around all of that are skipped.

    Args:
        listing: the images of a source.
        ignore: names of folders whose images are left out.

    Raises:
        DatasetError: there are no images, or fewer than two classes; a folder of a class is empty;
            two classes differ only by case; splits differ in classes; a folder is neither a split
            nor a class. It shows the folders where they are the reason.
    """
    ignored = Counter(listing.ignored)
    images = []
    for image in listing.images:
        if skipped := next((part for part in _folder(image) if part in ignore), None):
            ignored[f"{skipped}/"] += 1
        else:
            images.append(image)
    folders = [folder for folder in listing.folders if not set(folder) & set(ignore)]
    if not images:
        raise DatasetError(
            f"no images found; read are files ending in {', '.join(EXTENSIONS)}"
            + (f"; ignored: {describe(ignored)}" if ignored else "")
        )
    if any(image.label is None for image in images):
        images = _from_folders(images, folders)
    return _checked(images, dict(ignored))


def describe(ignored: Counter[str] | dict[str, int]) -> str:
    """Say what was ignored, the most frequent first."""
    most = Counter(ignored).most_common(MOST_NAMED)
    more = f", and {len(ignored) - len(most)} other kinds" if len(ignored) > len(most) else ""
    return ", ".join(f"{count:,} {name}" for name, count in most) + more


def _folder(image: Listed) -> tuple[str, ...]:
    return PurePosixPath(image.name).parts[:-1]


def _from_folders(images: list[Listed], folders: list[tuple[str, ...]]) -> list[Listed]:
    """Take split and class from the folders of each image."""
    places = {image.name: _folder(image) for image in images}
    everything = {*folders, *places.values()}
    filled = set(places.values())
    depth = _depth(everything, filled)
    splits = _splits(everything, filled, depth)
    found = []
    for image in images:
        inside = places[image.name][depth:]
        split = splits.get(inside[0]) if inside else None
        inside = inside[1:] if split else inside
        if not inside:
            raise DatasetError(
                f"image {image.name!r} lies outside of the class folders{_tree(everything)}"
            )
        found.append(replace(image, label=inside[0], split=split))
    _refuse_empty(everything, filled, depth, splits)
    return found


def _depth(everything: set[tuple[str, ...]], filled: set[tuple[str, ...]]) -> int:
    """Return how many folders lie around all splits or classes."""
    depth = 0
    while True:
        tops = {folder[depth] for folder in everything if len(folder) > depth}
        direct = any(len(folder) <= depth + 1 for folder in filled)
        if len(tops) != 1 or direct or split_named(next(iter(tops))):
            return depth
        depth += 1


def _splits(
    everything: set[tuple[str, ...]], filled: set[tuple[str, ...]], depth: int
) -> dict[str, Split]:
    """Return the split of each folder that is one; nothing where the folders are classes."""
    tops = sorted({folder[depth] for folder in everything if len(folder) > depth})
    splits = {name: split for name in tops if (split := split_named(name))}
    others = [name for name in tops if name not in splits]
    nested = {folder[depth] for folder in filled if len(folder) > depth + 1}
    flat = [name for name in splits if name not in nested]
    if not any(splits[name] == "train" for name in splits if name in nested):
        if others or not splits:
            return {}
        raise DatasetError(f"no folder of train has class folders{_tree(everything)}")
    if others and set(splits.values()) == {"train"} and not _without_class(others):
        return {}  # a class of trains, say
    if wrong := others or flat:
        reason = "is no split" if others else "has no images in class folders"
        raise DatasetError(
            f"beside {', '.join(sorted(set(splits) - set(wrong)))} lies {_some(wrong)}, which "
            f"{reason}; allowed: <split>/<class>/<image>, where a split is train, val or test; to "
            f"leave it out: `ignore: [{', '.join(wrong)}]`{_tree(everything)}"
        )
    for name, split in splits.items():
        if same := [other for other in splits if other != name and splits[other] == split]:
            raise DatasetError(f"{name!r} and {same[0]!r} both mean {split}; merge the folders")
    return splits


def _without_class(names: Sequence[str]) -> bool:
    return any(name.lower() in WITHOUT_CLASS for name in names)


def _refuse_empty(
    everything: set[tuple[str, ...]],
    filled: set[tuple[str, ...]],
    depth: int,
    splits: dict[str, Split],
) -> None:
    at = depth + bool(splits)
    classes = {folder[: at + 1] for folder in everything if len(folder) > at}
    empty = sorted(classes - {folder[: at + 1] for folder in filled})
    if empty:
        shown = "/".join(empty[0][depth:])
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DatasetError(
            f"there are class folders without an image: {shown!r}{more}; to leave them out: "
            f"`ignore: [{empty[0][-1]}]`"
        )


def _checked(images: Iterable[Listed], ignored: dict[str, int]) -> Layout:
    """Number the classes, and check them."""
    # One name has two spellings where macOS wrote one of them.
    images = list(images)
    # Where some images have a split, the others are for training.
    rest: Split | None = "train" if any(image.split for image in images) else None
    by_class: dict[str, list[Listed]] = defaultdict(list)
    for image in images:
        by_class[unicodedata.normalize("NFC", image.label or "")].append(image)
    names = sorted(by_class)
    _check_names(names)
    if len(names) < 2:
        raise DatasetError(f"one class only, {names[0]!r}; a classifier needs at least two")
    made = [
        Labelled(image.name, label, image.split or rest, image.group or image.sha256, image.sha256)
        for label, name in enumerate(names)
        for image in by_class[name]
    ]
    order: dict[Split | None, int] = {None: 0, "train": 0, "val": 1, "test": 2}
    made.sort(key=lambda image: (order[image.split], image.label, image.name))
    found = Layout(tuple(names), tuple(made), ignored)
    _check_same(found)
    return found


def _check_names(names: list[str]) -> None:
    """Refuse names that MLflow or a file system cannot take, and those that look the same."""
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        raise DatasetError(
            f"the name of a class is {len(long[0])} characters long; allowed: {LONGEST_NAME}: "
            f"{long[0][:40]}…"
        )
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DatasetError(f"classes {other!r} and {name!r} differ only by case")


def _check_same(found: Layout) -> None:
    """Refuse splits of different classes."""
    classes: dict[str, set[str]] = defaultdict(set)
    for image in found.images:
        if image.split:
            classes[image.split].add(found.class_names[image.label])
    for split in set(classes) - {"train"}:
        train, other = classes["train"], classes[split]
        if train != other:
            only = {"train": sorted(train - other), split: sorted(other - train)}
            reasons = [f"only in {s}: {_some(names)}" for s, names in only.items() if names]
            raise DatasetError(f"train and {split} have different classes; {'; '.join(reasons)}")


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more


def _tree(folders: Iterable[tuple[str, ...]]) -> str:
    """Show the upper folders, as the end of a message."""
    upper = sorted({folder[:depth] for folder in folders for depth in (1, 2) if folder[:depth]})
    shown = [f"{'/'.join(folder)}/" for folder in upper[:FOLDERS_SHOWN]]
    more = [f"… and {len(upper) - FOLDERS_SHOWN} more"] if len(upper) > FOLDERS_SHOWN else []
    return f"; there are the folders {', '.join(shown + more)}" if shown else ""
