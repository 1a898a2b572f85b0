"""How two models differ on the test split: pure functions of what both say of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import CONFIDENCE, Interval, intervals, share_interval
from pipeline.evaluation.measures import confusion
from pipeline.evaluation.metric import ImageMetric, SplitMetric
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.paired import mcnemar, paired_interval
from pipeline.evaluation.predictions import Predictions

# Of the test split, from 0 to 1: the page shows them on one scale.
SHARES = tuple(
    metric.name
    for metric in METRICS
    if metric.unit == "share" and isinstance(metric, ImageMetric | SplitMetric)
)


@dataclass(frozen=True)
class Value:
    """A number with its 95% interval, where that is known."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class ComparedMetric:
    """A number of both models; None of one that was made without it."""

    name: str
    a: Value | None
    b: Value | None

    @property
    def difference(self) -> float | None:
        """B - A."""
        return self.b.value - self.a.value if self.a and self.b else None


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Attributes:
        both: images that both have right.
        only_a: images that only A has right: right -> wrong.
        only_b: images that only B has right: wrong -> right.
        neither: images that both have wrong.
        p_value: how likely counts this far apart, either way, would be if both were equally good.
        p_better: the same of B ahead of A alone, which is what the gate asks.
        difference: of the accuracies, B - A, with its 95% interval.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    p_better: float
    difference: Value

    @property
    def images(self) -> int:
        """How many there are."""
        return self.both + self.only_a + self.only_b + self.neither


def metrics(
    a: Mapping[str, float], b: Mapping[str, float], said_a: Predictions, said_b: Predictions
) -> tuple[ComparedMetric, ...]:
    """Put the metrics of two models side by side, with 95% intervals."""
    known = _values(a, said_a), _values(b, said_b)
    names = [metric.name for metric in METRICS if metric.name in {*known[0], *known[1]}]
    return tuple(ComparedMetric(name, known[0].get(name), known[1].get(name)) for name in names)


def _values(numbers: Mapping[str, float], said: Predictions) -> dict[str, Value]:
    ends = intervals(said)
    return {name: Value(value, ends.get(name)) for name, value in numbers.items()}


def paired(a: Predictions, b: Predictions) -> Paired:
    """Compare two models image by image.

    Args:
        a: of the test split.
        b: of the same, with the same classes.
    """
    right_a, right_b = a.right, b.right
    forth, back = mcnemar(right_a, right_b), mcnemar(right_b, right_a)
    difference = float(right_b.mean() - right_a.mean())
    return Paired(
        both=int((right_a & right_b).sum()),
        only_a=forth.only_a,
        only_b=forth.only_b,
        neither=int((~right_a & ~right_b).sum()),
        # The distribution is symmetric, so the other tail is as heavy.
        p_value=min(1.0, 2 * min(forth.p_better, back.p_better)),
        p_better=forth.p_better,
        difference=Value(difference, paired_interval(right_a, right_b, CONFIDENCE)),
    )


def flips(a: Predictions, b: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the test images that go right -> wrong and those that go wrong -> right.

    In both the most confident mistake comes first.
    """
    right_a, right_b = a.right, b.right
    lost, won = np.flatnonzero(right_a & ~right_b), np.flatnonzero(~right_a & right_b)
    by_b = np.argsort(-b.probabilities[lost].max(axis=1), kind="stable")
    by_a = np.argsort(-a.probabilities[won].max(axis=1), kind="stable")
    return lost[by_b], won[by_a]


def recalls(a: Predictions, b: Predictions) -> tuple[ComparedMetric, ...]:
    """Return the recall of each class with test images, the largest difference first.

    Args:
        a: of any test split.
        b: with the same classes.
    """
    rows = [
        ComparedMetric(name, _recall(a, label), _recall(b, label))
        for label, name in enumerate(a.class_names)
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.difference or 0)))


def _recall(said: Predictions, label: int) -> Value | None:
    hits = said.predicted[said.y == label] == label
    return Value(float(hits.mean()), share_interval(hits)) if len(hits) else None


def confusion_difference(a: Predictions, b: Predictions) -> NDArray[np.int64]:
    """Return how much more often B says each class (column) of each true class (row) than A."""
    return confusion(b) - confusion(a)
