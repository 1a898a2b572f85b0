"""How two models differ on the test split: pure functions of their predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import intervals
from pipeline.evaluation.measures import confusion
from pipeline.evaluation.metric import ImageMetric, SplitMetric
from pipeline.evaluation.metrics import BY_NAME, METRICS
from pipeline.evaluation.paired import mcnemar, paired_interval
from pipeline.evaluation.predictions import Hits, Predictions
from pipeline.evaluation.shares import CONFIDENCE, Interval, share_interval
from pipeline.reports import wording
from pipeline.reports.comparing.sides import Side

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
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
    """A number of both models; None for a model that lacks it."""

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
        both: images that both classify correctly.
        only_a: images that only A classifies correctly: right -> wrong.
        only_b: images that only B classifies correctly: wrong -> right.
        neither: images that both classify wrongly.
        p_value: the p-value of the two-sided test: how likely counts this different would be if
            both models were equally good.
        p_better: the p-value of the one-sided test that B is better, which the gate uses.
        difference: accuracy of B minus that of A, with its 95% interval.
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
        """The number of test images."""
        return self.both + self.only_a + self.only_b + self.neither


def metrics(a: Side, b: Side) -> tuple[ComparedMetric, ...]:
    """Put the metrics of two models side by side, with 95% intervals."""
    known = _values(a), _values(b)
    names = [metric.name for metric in METRICS if metric.name in {*known[0], *known[1]}]
    return tuple(ComparedMetric(name, known[0].get(name), known[1].get(name)) for name in names)


def _values(side: Side) -> dict[str, Value]:
    found = intervals(side.predictions)
    return {name: Value(value, found.get(name)) for name, value in side.metrics.items()}


def paired(a: Predictions, b: Predictions) -> Paired:
    """Compare two models image by image.

    Args:
        a: predictions for the test split.
        b: predictions for the same images and classes.
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


def flipped(a: Predictions, b: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the test images that go right -> wrong and those that go wrong -> right.

    In both, the most confident mistake comes first.
    """
    right_a, right_b = a.right, b.right
    lost, won = np.flatnonzero(right_a & ~right_b), np.flatnonzero(~right_a & right_b)
    by_b = np.argsort(-b.confidence[lost], kind="stable")
    by_a = np.argsort(-a.confidence[won], kind="stable")
    return lost[by_b], won[by_a]


def recalls(a: Predictions, b: Predictions) -> tuple[ComparedMetric, ...]:
    """Return the recall of each class, the largest difference first.

    Args:
        a: predictions for any test split.
        b: predictions with the same classes.
    """
    hits_a, hits_b = a.hits_by_class(), b.hits_by_class()
    rows = [
        ComparedMetric(name, _share(hits_a[name]), _share(hits_b[name])) for name in a.class_names
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.difference or 0)))


def _share(hits: Hits) -> Value | None:
    return Value(float(hits.mean()), share_interval(hits)) if len(hits) else None


def confusion_difference(a: Predictions, b: Predictions) -> NDArray[np.int64]:
    """Return the confusion matrix of B minus that of A; a row is a true class."""
    return confusion(b) - confusion(a)


def label_text(name: str) -> str:
    """Name a metric, with an arrow in the direction that is better."""
    return wording.label(name) + (ARROWS[BY_NAME[name].better] if name in BY_NAME else "")


def value_text(value: Value | None, name: str) -> str:
    """Write the value of a metric with its unit."""
    return "not known" if value is None else wording.value_text(name, value.value)


def interval_text(value: Value | None, name: str) -> str:
    """Write the interval of a metric; nothing where it has none."""
    return wording.interval_text(name, value.interval) if value and value.interval else ""


def difference_text(metric: ComparedMetric) -> str:
    """Write B - A: shares in percentage points, losses as they are, the rest in percent of A."""
    difference = metric.difference
    if difference is None or metric.a is None:
        return ""
    unit = BY_NAME[metric.name].unit
    if unit == "share":
        return f"{points(difference)} points"
    if unit in ("nats", "probability"):
        return f"{difference:+.3g}"
    return f"{difference / metric.a.value:+.0%}" if metric.a.value else ""


def points(share: float) -> str:
    """Write a difference of shares in percentage points."""
    return f"{100 * share:+.2f}"
