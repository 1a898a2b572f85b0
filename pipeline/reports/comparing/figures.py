"""The figures of the page: where their marks are; the template draws and colours them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.reports.comparing.side_by_side import ComparedMetric, Value
from pipeline.reports.comparing.sides import Side

# Of the curves, in SVG units.
WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 30
# A figure with more rows than these is unreadable.
MOST_CLASSES = 30
CURVES = {"loss": "loss", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place, and what is written beside it."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        side: `a` or `b`.
        split: `training` or `validation`.
        points: the points of an SVG polyline.
        last: x and y of its end.
    """

    side: str
    split: str
    points: str
    last: tuple[float, float]


@dataclass(frozen=True)
class Curves:
    """One figure of curves over the epochs."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    description: str


def curves(a: Side, b: Side) -> tuple[Curves, ...]:
    """Draw loss and accuracy of both models in the same axes."""
    return tuple(_curves(title, column, a, b) for title, column in CURVES.items())


def _curves(title: str, column: str, a: Side, b: Side) -> Curves:
    drawn = [
        (side, split, which.history["epoch"], which.history[prefix + column])
        for side, which in (("a", a), ("b", b))
        for split, prefix in (("training", ""), ("validation", "val_"))
    ]
    x_axis = _Axis.around([x for row in drawn for x in row[2]], LEFT, WIDTH - RIGHT, whole=True)
    y_axis = _Axis.around([y for row in drawn for y in row[3]], HEIGHT - BOTTOM, TOP)
    lines = []
    for side, split, xs, ys in drawn:
        places = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(xs, ys, strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(Line(side, split, points, places[-1]))
    ends = [f"{side.upper()} {split} ends at {ys[-1]:.4g}" for side, split, _, ys in drawn]
    return Curves(
        title, tuple(lines), x_axis.ticks, y_axis.ticks, f"{title} by epoch: {', '.join(ends)}"
    )


@dataclass(frozen=True)
class _Axis:
    """A linear scale from numbers to places in the drawing."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...] = ()

    @classmethod
    def around(
        cls,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        whole: bool = False,
        percent: bool = False,
    ) -> "_Axis":
        """Make an axis that holds all values, with a few round numbers as ticks."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        if low == high:
            low, high = low - 0.5, high + 0.5
        bare = cls(low, high, start, end)
        rounds = MaxNLocator(nbins=5, integer=whole).tick_values(low, high)
        slack = 1e-9 * (high - low)
        return cls(
            *(low, high, start, end),
            tuple(
                Tick(bare.at(value), f"{100 * value:g}%" if percent else f"{value:g}")
                for value in map(float, np.round(rounds, 10))
                if low - slack <= value <= high + slack
            ),
        )

    def at(self, value: float) -> float:
        """Return the place of a number."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Mark:
    """A dot with its interval, in percent of the width."""

    dot: float
    start: float
    length: float


@dataclass(frozen=True)
class DotRow:
    """A metric and where its two marks are; None of a model that lacks it."""

    metric: ComparedMetric
    a: Mark | None
    b: Mark | None


@dataclass(frozen=True)
class Dots:
    """Metrics on one scale."""

    rows: tuple[DotRow, ...]
    ticks: tuple[Tick, ...]


def dots(metrics: Sequence[ComparedMetric]) -> Dots:
    """Put shares on one common scale, just wide enough for all."""
    values = [value for metric in metrics for value in (metric.a, metric.b) if value]
    edges = [edge for value in values for edge in (value.value, *(value.interval or ()))]
    # A little margin, so that no dot is cut off.
    axis = _Axis.around(edges, 2, 98, percent=True)
    rows = tuple(DotRow(row, _mark(row.a, axis), _mark(row.b, axis)) for row in metrics)
    return Dots(rows, axis.ticks)


def _mark(value: Value | None, axis: _Axis) -> Mark | None:
    if value is None:
        return None
    low, high = value.interval or (value.value, value.value)
    start = axis.at(low)
    return Mark(axis.at(value.value), start, round(axis.at(high) - start, 2))


@dataclass(frozen=True)
class Cell:
    """How much more often B predicts a class than A; `strength` is 0 to 1."""

    count: int
    strength: float
    predicted: str


@dataclass(frozen=True)
class Matrix:
    """The difference of two confusion matrices; of many classes, those that changed most."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    classes: int


def matrix(difference: NDArray[np.int64], names: Sequence[str]) -> Matrix:
    """Choose the classes to show, and the colour strength of each cell."""
    moved = np.abs(difference)
    weight = moved.sum(axis=0) + moved.sum(axis=1)
    chosen = np.sort(np.argsort(-weight, kind="stable")[:MOST_CLASSES])
    largest = max(int(moved.max()), 1)
    rows = tuple(
        tuple(
            Cell(count := int(difference[true, predicted]), abs(count) / largest, names[predicted])
            for predicted in chosen
        )
        for true in chosen
    )
    return Matrix(tuple(names[label] for label in chosen), rows, len(names))
