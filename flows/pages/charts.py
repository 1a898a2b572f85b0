"""The charts of grids and searches, as PNG files; matplotlib is imported by the first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.search.cells import Summary
    from flows.search.study import TrialRecord


def draw_grid(path: Path, summaries: Sequence["Summary"]) -> None:
    """Draw the accuracy of every recipe: the mean over the seeds, and the deviation as a bar."""
    from pipeline.artifacts.figures import new_figure, save_figure

    shown = list(reversed(summaries))
    figure = new_figure(8, 1 + 0.5 * len(shown))
    axes = figure.add_subplot(xlabel="accuracy: mean over the seeds ± deviation")
    for offset, color, label in ((0.12, "tab:blue", "validation"), (-0.12, "tab:orange", "test")):
        points = [
            (row, one.val_accuracy if label == "validation" else one.accuracy)
            for row, one in enumerate(shown)
        ]
        known = [(row, spread.mean, spread.sd or 0.0) for row, spread in points if spread.mean]
        if known:
            axes.errorbar(
                [mean for _, mean, _ in known],
                [row + offset for row, _, _ in known],
                xerr=[sd for _, _, sd in known],
                fmt="o",
                capsize=3,
                color=color,
                label=label,
            )
    axes.set_ylim(-0.5, len(shown) - 0.5)
    axes.set_yticks(range(len(shown)), [f"{one.dataset} {one.model}" for one in shown])
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    save_figure(figure, path)


def draw_trials(path: Path, trials: Sequence["TrialRecord"]) -> None:
    """Draw the value of every trial in order, and the best so far."""
    from pipeline.artifacts.figures import new_figure, save_figure

    figure = new_figure(8, 4)
    axes = figure.add_subplot(xlabel="trial", ylabel="accuracy on the validation split")
    axes.locator_params("x", integer=True)
    best: list[tuple[int, float]] = []
    for state, marker, color in (("COMPLETE", "o", "tab:blue"), ("PRUNED", "x", "tab:gray")):
        points = [(t.number, t.value) for t in trials if t.state == state and t.value is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, marker=marker, color=color, label=state.lower())
        if state == "COMPLETE":
            for number, value in points:
                best.append((number, max(value, best[-1][1] if best else value)))
    if best:
        x, y = zip(*best, strict=True)
        axes.step(x, y, where="post", color="tab:red", label="best so far")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    save_figure(figure, path)


def draw_importances(path: Path, shares: Mapping[str, float]) -> None:
    """Draw how much of the differences between trials each key explains."""
    from pipeline.artifacts.figures import new_figure, save_figure

    figure = new_figure(8, 1.4 + 0.4 * len(shares))
    axes = figure.add_subplot(xlabel="share of the differences between trials", xlim=(0, 1))
    rows = sorted(shares.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in rows], [share for _, share in rows], color="tab:blue")
    axes.grid(alpha=0.3, axis="x")
    save_figure(figure, path)
