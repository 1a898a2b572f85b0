"""The reports on corruptions and slices: tables, and the figures beside them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from pipeline.artifacts.figures import new_figure, save_figure
from pipeline.artifacts.files import atomic
from pipeline.artifacts.models import Evaluation, Slice
from pipeline.evaluation.robustness.corrupted import Cell, Corrupted
from pipeline.evaluation.robustness.slices import Slices

_MOST_DRAWN = 30


def save_corrupted(found: Corrupted, evaluation: Evaluation) -> None:
    """Write the accuracy under each corruption as a table and as a figure."""
    _save_table(pd.DataFrame([asdict(cell) for cell in found.cells]), evaluation.corruptions_file)
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot(
        title=f"accuracy on corrupted images: {found.accuracy:.1%} on average",
        xlabel="severity; 0: the images as they are",
        ylabel="accuracy",
        ylim=(0, 1.02),
    )
    for name in dict.fromkeys(cell.corruption for cell in found.cells):
        cells = [cell for cell in found.cells if cell.corruption == name]
        low, high = _distances(cells)
        severity, accuracy = zip(*((cell.severity, cell.accuracy) for cell in cells), strict=True)
        axes.errorbar(
            severity, accuracy, (low, high), label=name, capsize=2, elinewidth=0.8, marker="o", ms=3
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, evaluation.path / "plots" / "corruptions.png")


def save_slices(found: Slices, accuracy: float, evaluation: Evaluation) -> None:
    """Write the accuracy on each slice as a table and as a figure.

    Args:
        found: the slices.
        accuracy: that on all test images.
        evaluation: gets both.
    """
    rows = pd.DataFrame([row.model_dump() for row in found.rows], columns=[*Slice.model_fields])
    _save_table(rows, evaluation.slices_file)
    drawn = found.rows[:_MOST_DRAWN][::-1]
    figure = new_figure(8, 1.6 + 0.3 * len(drawn))
    more = len(found.rows) - len(drawn)
    title = f"accuracy by slice{f': the worst {len(drawn)}' if more > 0 else ''}"
    axes = figure.add_subplot(title=title, xlabel=f"accuracy; all test images: {accuracy:.1%}")
    axes.axvline(accuracy, linestyle="--", color="gray")
    if drawn:
        names = [f"{row} ({row.images:,})" for row in drawn]
        axes.errorbar(
            [row.accuracy for row in drawn], range(len(drawn)), xerr=_distances(drawn), fmt="o"
        )
        # A value such as `$10` is no formula.
        axes.set_yticks(range(len(drawn)), names, fontsize=8, parse_math=False)
    else:
        axes.set_yticks([])
        axes.text(accuracy, 0, "no slice has enough test images", ha="center")
    axes.grid(alpha=0.3)
    save_figure(figure, evaluation.path / "plots" / "slices.png")


def _save_table(rows: pd.DataFrame, path: Path) -> None:
    with atomic(path) as part:
        rows.to_csv(part, index=False)


def _distances(shares: Sequence[Cell | Slice]) -> tuple[list[float], list[float]]:
    """Return how far the interval of each share reaches down and up."""
    down = [max(0.0, share.accuracy - share.low) for share in shares]
    return down, [max(0.0, share.high - share.accuracy) for share in shares]
