"""The split and class of each image from the names of the folders that it lies in."""

from collections.abc import Iterable, Sequence

from pipeline.artifacts.datasets import Split
from pipeline.data.readers.listing import Listed, parts_of
from pipeline.data.readers.splitnames import split_named, split_within
from pipeline.errors import DatasetError

# Folders of images without a class, which stand beside `train` in many archives.
WITHOUT_CLASS = frozenset({"unlabeled", "unlabelled", "unsup", "pred", "predict", "prediction"})
MOST_NAMED = 5
FOLDERS_SHOWN = 12
Folder = tuple[str, ...]


def folder_of(image: Listed) -> Folder:
    """Return the parts of the path of the folder that an image lies in."""
    return parts_of(image.name)[:-1]


def from_folders(images: list[Listed], folders: list[Folder]) -> list[Listed]:
    """Take split and class from the folders of each image.

    `<class>/…` or `<split>/<class>/…`; folders around all of that, and between all splits and
    their classes, are skipped.

    Args:
        images: of the source.
        folders: of the source, also those without images.

    Raises:
        DatasetError: a folder is neither a split nor a class, or has no image; shows the folders.
    """
    places = {image.name: folder_of(image) for image in images}
    everything = {*folders, *places.values()}
    filled = set(places.values())
    depth = _depth(everything, filled)
    splits = _splits(everything, filled, depth)
    between = _between(everything, filled, depth, splits) if splits else 0
    found = []
    for image in images:
        inside = places[image.name][depth:]
        split = splits.get(inside[0]) if inside else None
        inside = inside[1 + between :] if split else inside
        if not inside:
            raise DatasetError(
                f"image {image.name!r} lies outside of the class folders{_tree(everything)}"
            )
        found.append(Listed(image.name, image.sha256, inside[0], split, image.group))
    _refuse_empty(everything, filled, depth, depth + bool(splits) + between)
    return found


def _depth(everything: set[Folder], filled: set[Folder]) -> int:
    """Return how many folders lie around all splits or classes."""
    depth = 0
    while True:
        tops = {folder[depth] for folder in everything if len(folder) > depth}
        direct = any(len(folder) <= depth + 1 for folder in filled)
        if len(tops) != 1 or direct or split_named(next(iter(tops))):
            return depth
        depth += 1


def _splits(everything: set[Folder], filled: set[Folder], depth: int) -> dict[str, Split]:
    """Return the split of each folder that is one; nothing where the folders are classes."""
    tops = sorted({folder[depth] for folder in everything if len(folder) > depth})
    splits = {name: split for name in tops if (split := split_named(name))}
    if not splits:
        splits = {name: split for name in tops if (split := split_within(name))}
        # One name alone, or two of a kind, may be classes: a bullet_train, say.
        if not {"train"} < set(splits.values()) or len(set(splits.values())) < len(splits):
            return {}
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
            f"beside {', '.join(sorted(set(splits) - set(wrong)))} lies {some(wrong)}, which "
            f"{reason}; allowed: <split>/<class>/<image>, where a split is train, val or test; to "
            f"leave it out: `ignore: [{', '.join(wrong)}]`{_tree(everything)}"
        )
    for name, split in splits.items():
        if same := [other for other in splits if other != name and splits[other] == split]:
            raise DatasetError(f"{name!r} and {same[0]!r} both mean {split}; merge the folders")
    return splits


def _between(
    everything: set[Folder], filled: set[Folder], depth: int, splits: dict[str, Split]
) -> int:
    """Return how many folders lie between each split and its classes: `train/images/<class>`."""
    between = 0
    while True:
        at = depth + 1 + between
        parts = {folder[: at + 1] for folder in everything if len(folder) > at}
        direct = any(len(folder) <= at + 1 for folder in filled)
        if direct or sorted(part[depth] for part in parts) != sorted(splits):
            return between
        between += 1


def _without_class(names: Sequence[str]) -> bool:
    return any(name.lower() in WITHOUT_CLASS for name in names)


def _refuse_empty(everything: set[Folder], filled: set[Folder], depth: int, at: int) -> None:
    classes = {folder[: at + 1] for folder in everything if len(folder) > at}
    empty = sorted(classes - {folder[: at + 1] for folder in filled})
    if empty:
        shown = "/".join(empty[0][depth:])
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DatasetError(
            f"there are class folders without an image: {shown!r}{more}; to leave them out: "
            f"`ignore: [{empty[0][-1]}]`"
        )


def some(names: Sequence[str]) -> str:
    """Name a few."""
    more = ", …" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more


def _tree(folders: Iterable[Folder]) -> str:
    """Show the upper folders, as the end of a message."""
    upper = sorted({folder[:depth] for folder in folders for depth in (1, 2) if folder[:depth]})
    shown = [f"{'/'.join(folder)}/" for folder in upper[:FOLDERS_SHOWN]]
    more = [f"… and {len(upper) - FOLDERS_SHOWN} more"] if len(upper) > FOLDERS_SHOWN else []
    return f"; there are the folders {', '.join(shown + more)}" if shown else ""
