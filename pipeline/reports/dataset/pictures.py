"""The pictures of a dataset that its page shows."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.artifacts.datasets import RawDataset
from pipeline.reports.dataset.facts import SPLITS, Facts, names

if TYPE_CHECKING:
    from pandas import DataFrame

SAMPLES = 8  # of each class
MOST_CLASSES = 40
AT_AN_END = 12  # largest, smallest, …
MOST_PAIRS = 24
MOST_PIXELS = 96  # of a side
# Smaller ones are shown as squares, and without loss.
SMALL = 48


@dataclass(frozen=True)
class Picture:
    """An image, as a data URI.

    Attributes:
        name: split and file.
        small: whether its pixels are shown as squares.
        note: what is said of it.
    """

    uri: str
    name: str
    small: bool
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a page.

    Attributes:
        classes: samples by class.
        ends: largest, smallest, darkest and brightest, by title.
        pairs: near-duplicates.
        twins: how many images have one.
    """

    classes: dict[str, tuple[Picture, ...]]
    ends: dict[str, tuple[Picture, ...]]
    pairs: tuple[tuple[Picture, Picture], ...]
    twins: int


def pictures(raw: RawDataset, facts: Facts) -> Pictures:
    """Choose pictures, and read them."""
    rows = facts.manifest[facts.manifest["error"] == ""]
    show = _Album(raw, facts.manifest)
    classes = {}
    for name in facts.info.class_names[:MOST_CLASSES]:
        members = rows[rows["class_name"] == name]
        spread = np.linspace(0, len(members) - 1, min(SAMPLES, len(members))).astype(int)
        classes[name] = tuple(show(members.iloc[spread]))
    again, twins = _repeated(rows)
    left, right = (show(part.head(MOST_PAIRS)) for part in (twins, again))
    return Pictures(
        classes=classes,
        ends=_ends(rows, show),
        pairs=tuple(zip(left, right, strict=True)),
        twins=len(again),
    )


def _repeated(rows: "DataFrame") -> "tuple[DataFrame, DataFrame]":
    """Return near-duplicates and the images that they repeat; those in two splits first."""
    first = rows["near_duplicate_of"]
    again = rows[(first != rows.index) & first.isin(rows.index)]
    twins = rows.loc[again["near_duplicate_of"]]
    across = again["split"].to_numpy() != twins["split"].to_numpy()
    order = np.argsort(~across, kind="stable")
    return again.iloc[order], twins.iloc[order]


def _ends(rows: "DataFrame", show: "_Album") -> dict[str, tuple[Picture, ...]]:
    area = rows["height"].astype(np.int64) * rows["width"]
    sizes = [f"{w}x{h}" for w, h in zip(rows["width"], rows["height"], strict=True)]
    brightness = [f"{100 * value / 255:.0f}% bright" for value in rows["mean"]]
    shown = {}
    for what, values, notes in (("size", area, sizes), ("light", rows["mean"], brightness)):
        if values.nunique() < 2:
            continue  # as of a known dataset, whose images are of one size
        order = np.argsort(values.to_numpy(), kind="stable")
        for end, some in (("high", order[::-1][:AT_AN_END]), ("low", order[:AT_AN_END])):
            title = {"size": ("Largest", "Smallest"), "light": ("Brightest", "Darkest")}[what]
            picked = show(rows.iloc[some], [notes[row] for row in some])
            shown[title[end == "low"]] = tuple(picked)
    return shown


class _Album:
    """Reads images of a dataset by their rows in the manifest."""

    def __init__(self, raw: RawDataset, manifest: "DataFrame") -> None:
        splits = [split for split in SPLITS if split in raw.info.counts]
        self._x = {str(split): raw.x(split) for split in splits}
        counts = manifest["split"].value_counts()
        starts = np.cumsum([0, *(int(counts.get(split, 0)) for split in splits)])
        self._starts = dict(zip(map(str, splits), starts.tolist(), strict=False))

    def __call__(self, rows: "DataFrame", notes: Iterable[str] | None = None) -> list[Picture]:
        """Return some images, each with a note; by default that is its class."""
        noted = list(rows["class_name"] if notes is None else notes)
        named = zip(rows.index, rows["split"], names(rows), noted, strict=True)
        return [
            picture(self._x[split][row - self._starts[split]], name, note)
            for row, split, name, note in named
        ]


def picture(pixels: Any, name: str, note: str) -> Picture:
    """Return an image (height, width, channels) as a picture; a large one is made smaller."""
    image = Image.fromarray(
        pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)
    )
    small = max(image.size) <= SMALL
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    buffer, kind = io.BytesIO(), "png" if small else "jpeg"
    image.save(buffer, kind)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/{kind};base64,{data}", name, small, note)
