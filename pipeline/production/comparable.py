"""What differs, in words, where models cannot be asked about the same images."""

from collections.abc import Sequence

from pipeline.artifacts.datasets import DatasetInfo
from pipeline.artifacts.models import RunInfo

# Of classes, in a sentence.
MOST_NAMES = 5


def differing_images(run: RunInfo, info: DatasetInfo) -> str:
    """Say how the images that a model takes differ from those of a dataset; empty: not at all."""
    texts = []
    if run.image_shape != info.image_shape:
        texts.append(f"it takes images of {_shape(run)}, those here are {_shape(info)}")
    if run.fit != info.fit:
        texts.append(f"its images were resized by fit: {run.fit}, those here by fit: {info.fit}")
    return "; ".join(texts)


def _shape(of: RunInfo | DatasetInfo) -> str:
    height, width, channels = of.image_shape
    return f"{height}x{width} in {'gray' if channels == 1 else 'colour'}"


def differing_classes(old: Sequence[str], new: Sequence[str]) -> str:
    """Say which classes are new and which are gone; empty where they are the same."""
    added = [name for name in new if name not in old]
    gone = [name for name in old if name not in new]
    pairs = (("new", added), ("gone", gone))
    texts = [f"{len(names)} {word}: {listed(names)}" for word, names in pairs if names]
    if len(added) == len(gone) > 0:
        texts.append("as many are new as are gone, so they may have been renamed")
    return "; ".join(texts)


def listed(names: Sequence[str]) -> str:
    """Name the first few."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
