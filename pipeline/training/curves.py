"""Figures of a training: its learning curves, strengths that were tried, images as it sees them."""

from pathlib import Path

import numpy as np

from pipeline.artifacts.datasets import Pixels
from pipeline.artifacts.figures import new_figure, save_figure
from pipeline.training.history import History

_COLUMNS = 8  # of images


def draw_curves(path: Path, history: dict[str, list[float]]) -> None:
    """Draw loss, accuracy and learning rate over the epochs.

    Args:
        path: where the PNG file is written.
        history: the columns of `history.csv`.
    """
    figure = new_figure(12, 3.6)
    epochs = history["epoch"]
    panels = {
        "loss": ["loss", "val_loss"],
        "accuracy": ["accuracy", "val_accuracy"],
        "learning rate": ["learning_rate"],
    }
    for number, (title, columns) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 3, number, title=title, xlabel="epoch")
        for column in columns:
            label = "validation" if column.startswith("val_") else "training"
            axes.plot(epochs, history[column], marker=".", label=label)
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend()
    save_figure(figure, path)


def draw_strengths(path: Path, history: History) -> None:
    """Draw loss and accuracy over the strengths of the penalty, and the one that was chosen."""
    figure = new_figure(8, 3.6)
    chosen = history.strengths[history.epochs.index(history.kept)]
    for number, kind in enumerate(("loss", "accuracy"), start=1):
        axes = figure.add_subplot(1, 2, number, title=kind, xlabel="l2", xscale="log")
        for name, label in ((kind, "training"), (f"val_{kind}", "validation")):
            axes.plot(
                history.strengths,
                [getattr(row, name) for row in history.epochs],
                marker=".",
                label=label,
            )
        axes.axvline(chosen, color="gray", linestyle=":", label="chosen")
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def draw_augmented(path: Path, images: Pixels) -> None:
    """Draw images in rows of eight.

    Args:
        path: where the PNG file is written.
        images: `uint8`, (n, height, width, channels).
    """
    height, width, channels = images.shape[1:]
    rows = -(-len(images) // _COLUMNS)
    # One picture, with a white line between images: 32 axes would take a second.
    grid = np.full((rows, height + 1, _COLUMNS, width + 1, channels), 255, np.uint8)
    for number, image in enumerate(images):
        grid[number // _COLUMNS, :-1, number % _COLUMNS, :-1] = image
    whole = grid.reshape(rows * (height + 1), _COLUMNS * (width + 1), channels)
    figure = new_figure(8, 0.5 + 8 * whole.shape[0] / whole.shape[1])
    axes = figure.add_subplot(title="training images, changed at random")
    axes.imshow(whole if channels == 3 else whole[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    save_figure(figure, path)
