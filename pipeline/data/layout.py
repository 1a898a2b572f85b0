"""The split and class of each image: as its format says, or from the names of its folders."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts.datasets import Split
from pipeline.data.class_folders import MOST_NAMED, folder_of, from_folders, some
from pipeline.data.readers.listing import Listed, Listing
from pipeline.errors import DatasetError
from pipeline.images import EXTENSIONS

# With what is put before it, a name has to fit into the 250 characters of a metric in MLflow.
LONGEST_NAME = 150


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image of the dataset.

    Attributes:
        name: in its source.
        label: the index of its class.
        split: that its source puts it in; None where none is said.
        key: its content, or its group: images of one key are in one split.
        sha256: of its file.
        columns: what a table says of it besides; None for nothing.
    """

    name: str
    label: int
    split: Split | None
    key: str
    sha256: str
    columns: Mapping[str, str] | None = None


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
        if skipped := next((part for part in folder_of(image) if part in ignore), None):
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
        images = from_folders(images, folders)
    return _checked(images, dict(ignored))


def describe(ignored: Counter[str] | dict[str, int]) -> str:
    """Say what was ignored, the most frequent first."""
    most = Counter(ignored).most_common(MOST_NAMED)
    more = f", and {len(ignored) - len(most)} other kinds" if len(ignored) > len(most) else ""
    return ", ".join(f"{count:,} {name}" for name, count in most) + more


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
        Labelled(
            *(image.name, label, image.split or rest, image.group or image.sha256, image.sha256),
            image.columns,
        )
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
            reasons = [f"only in {s}: {some(names)}" for s, names in only.items() if names]
            raise DatasetError(f"train and {split} have different classes; {'; '.join(reasons)}")
