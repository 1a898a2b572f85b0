"""The figures of an evaluation, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.figures import new_figure, save_figure
from pipeline.evaluation.measures import Reliability
from pipeline.evaluation.predictions import Predictions

_WIDEST = 40  # more classes than these have no room for names and numbers


def draw_confusion(
    path: Path, counts: NDArray[np.int64], class_names: Sequence[str], *, normalised: bool
) -> None:
    """Draw a confusion matrix: counts, or the share of each true class."""
    size = len(class_names)
    values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalised else counts
    side = float(np.clip(2.5 + 0.55 * size, 5, 16))
    figure = new_figure(side + 1, side)
    title = "share of each true class" if normalised else "images"
    axes = figure.add_subplot(title=title, xlabel="predicted", ylabel="true")
    shown = axes.imshow(values, cmap="Blues", vmin=0)
    figure.colorbar(shown, shrink=0.8)
    if size <= _WIDEST:
        # A name such as `$10` is no formula.
        axes.set_xticks(range(size), class_names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(size), class_names, parse_math=False)
        for (row, column), value in np.ndenumerate(values):
            if value:
                text = f"{value:.2f}" if normalised else f"{value:d}"
                color = "white" if value > values.max() / 2 else "black"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def draw_reliability(path: Path, bins: Reliability, error: float) -> None:
    """Draw accuracy over confidence; on the diagonal, the model is calibrated."""
    figure = new_figure(5, 5)
    axes = figure.add_subplot(
        title=f"calibration error {error:.3f}",
        xlabel="confidence",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.plot([0, 1], [0, 1], linestyle="--", color="gray")
    axes.plot(bins.confidence, bins.accuracy, color="tab:blue")
    share = bins.count / bins.count.sum()
    axes.scatter(bins.confidence, bins.accuracy, s=20 + 300 * share, color="tab:blue", alpha=0.6)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def draw_images(
    path: Path, images: Images, captions: Sequence[str], columns: int = 9, empty: str = "none"
) -> None:
    """Draw images (n, height, width, channels) in a grid, each under its caption."""
    rows = max(1, -(-len(images) // columns))
    figure = new_figure(1.35 * columns, 1.75 * rows)
    # One pair of axes for all images: a pair for each is forty times slower.
    axes = figure.add_subplot(xlim=(0, columns), ylim=(1.3 * rows, 0), aspect="equal")
    axes.axis("off")
    if not len(images):
        axes.text(columns / 2, 0.65, empty, ha="center", va="center")
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = number % columns, 1.3 * (number // columns) + 0.3
        axes.imshow(
            image.squeeze(),
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(left + 0.04, left + 0.96, top + 0.96, top + 0.04),
        )
        # A class name may contain a $, which matplotlib would read as the start of a formula.
        axes.text(left + 0.5, top, caption, fontsize=7, ha="center", va="bottom", parse_math=False)
    axes.set(xlim=(0, columns), ylim=(1.3 * rows, 0))
    save_figure(figure, path)


def caption(predictions: Predictions, image: int) -> str:
    """Return the class of an image, the predicted one if it is wrong, and the confidence."""
    true, predicted = (
        predictions.class_names[labels[image]] for labels in (predictions.y, predictions.predicted)
    )
    wrong = "" if predictions.right[image] else f"\nnot {predicted}"
    return f"{true}{wrong}\n{predictions.confidence[image]:.0%}"
