"""A figure of sample images by class."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels
from pipeline.artifacts.figures import new_figure, save_figure

MOST_CLASSES = 20
PER_CLASS = 10
MOST_PIXELS = 96  # of a side; of larger images every second, third, … pixel is shown
GAP = 2


def save_samples(x: Images, y: Labels, class_names: tuple[str, ...], path: Path) -> None:
    """Save a PNG with a row of images per class.

    Args:
        x: (n, height, width, channels), 1 or 3 channels.
        y: (n,).
        class_names: only the first 20 are shown, and the title says so.
        path: the path of the PNG.
    """
    shown = class_names[:MOST_CLASSES]
    mosaic = np.concatenate([_row(x, np.flatnonzero(y == label)) for label in range(len(shown))])
    height, width = mosaic.shape[:2]
    figure = new_figure(7, 7 * height / width, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(mosaic if mosaic.shape[2] == 3 else mosaic[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    centres = (np.arange(len(shown)) + 0.5) * (height / len(shown))
    # A name is shown as it is: neither as a formula nor at any length.
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in shown]
    axes.set_yticks(centres, names, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(shown) < len(class_names):
        axes.set_title(f"The first {len(shown)} of {len(class_names)} classes")
    save_figure(figure, path, dpi=120, cropped=True)


def _row(x: Images, rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Put images side by side that are spread evenly over the rows; white where there are few."""
    step = math.ceil(max(x.shape[1:3]) / MOST_PIXELS)
    spread = np.linspace(0, len(rows) - 1, min(PER_CLASS, len(rows))).astype(int)
    picked = x[rows[spread], ::step, ::step]
    blanks = np.full((PER_CLASS - len(picked), *picked.shape[1:]), 255, np.uint8)
    border = ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0))
    framed = np.pad(np.concatenate([picked, blanks]), border, constant_values=255)
    return np.concatenate(list(framed), axis=1)
