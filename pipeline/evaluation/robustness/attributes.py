"""What test images are sliced by, as a list: how they look, and what is recorded of their files.

To add one, add an entry to `LOOKS` or `RECORDED` and a row to docs/robustness.md. Other columns of
a table of labels are sliced by too, each under its own name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from pipeline.artifacts.datasets import COLUMN, Images, Pixels, Splits, Values

_BYTES_AT_ONCE = 2**24
Gray = NDArray[np.float32]  # (n, height, width)


@dataclass(frozen=True)
class Look:
    """An attribute that is measured on pixels.

    Attributes:
        name: as reports have it.
        tells: what it is, as docs/robustness.md says.
        measure: returns a number for each image, given in gray (n, height, width).
    """

    name: str
    tells: str
    measure: Callable[[Gray], Values]


@dataclass(frozen=True)
class Recorded:
    """An attribute of the image's file.

    Attributes:
        name: as reports have it.
        tells: what it is, as docs/robustness.md says.
        read: returns a value for each image, from what `Splits.recorded` returns.
    """

    name: str
    tells: str
    read: Callable[[Mapping[str, Values]], Values]


def _gray(images: Pixels) -> Gray:
    # Whole numbers, whose sum is exact; the mean along so short an axis takes five times as long.
    total = images[..., 0].astype(np.float32)
    for channel in range(1, images.shape[3]):
        total += images[..., channel]
    gray: Gray = total / np.float32(images.shape[3])
    return gray


def _side(recorded: Mapping[str, Values]) -> Values:
    side: Values = np.sqrt(recorded["height"].astype(float) * recorded["width"])
    return side


LOOKS: tuple[Look, ...] = (
    Look(
        "brightness",
        tells="the mean of its pixels, 0 to 255",
        measure=lambda gray: gray.mean(axis=(1, 2)),
    ),
    Look(
        "contrast",
        tells="the standard deviation of its pixels in gray",
        measure=lambda gray: gray.std(axis=(1, 2)),
    ),
    Look(
        "sharpness",
        tells="the standard deviation of its edges (Laplace), at the size of the dataset",
        measure=lambda gray: laplace(gray, axes=(1, 2)).std(axis=(1, 2)),
    ),
)
RECORDED: tuple[Recorded, ...] = (
    Recorded(
        "size of the file's image",
        tells="the root of height times width, in pixels, before it is resized",
        read=_side,
    ),
    Recorded(
        "aspect ratio",
        tells="width through height, before it is resized",
        read=lambda recorded: np.round(recorded["width"] / recorded["height"].clip(min=1), 2),
    ),
    Recorded(
        "group",
        tells="its `group`, where the dataset has groups that are no near-duplicates",
        read=lambda recorded: recorded["group"],
    ),
)


def attributes(splits: Splits) -> dict[str, Values]:
    """Return what is known of each test image, by the name of the attribute: numbers or texts."""
    recorded = splits.recorded("test")
    found = _looks(splits.x("test"))
    if recorded:
        found |= {one.name: one.read(recorded) for one in RECORDED}
    for key, values in recorded.items():
        if key.startswith(COLUMN):
            name = key.removeprefix(COLUMN)
            found[key.replace(":", " ") if name in found else name] = _as_numbers(values)
    return found


def _looks(images: Images) -> dict[str, Values]:
    step = max(1, _BYTES_AT_ONCE // int(np.prod(images.shape[1:])))
    parts = (_gray(np.asarray(images[at : at + step])) for at in range(0, len(images), step))
    found = [[one.measure(part) for one in LOOKS] for part in parts]
    columns = map(np.concatenate, zip(*found, strict=True))
    return {one.name: values for one, values in zip(LOOKS, columns, strict=True)}


def _as_numbers(texts: Values) -> Values:
    """Return texts as numbers where all are, but for empty ones, which are not a number then."""
    try:
        return np.array([float(text) if text else np.nan for text in texts.tolist()])
    except ValueError:
        return texts
