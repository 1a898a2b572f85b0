"""95% intervals of the metrics: Wilson's for shares of images, most others by the bootstrap."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.evaluation.measures import by_class, losses
from pipeline.evaluation.metric import CorruptionMetric, ImageMetric, SliceMetric
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.robustness.corrupted import Corrupted
from pipeline.evaluation.robustness.slices import Slices
from pipeline.evaluation.shares import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    lowest_interval,
    share_interval,
)
from pipeline.models.calibration import BINS, confidence_bins

Floats = NDArray[np.float64]


def intervals(predictions: Predictions) -> dict[str, Interval]:
    """Return the interval of each metric that has one, by name."""
    shares = {
        metric.name: share_interval(metric.hits(predictions))
        for metric in METRICS
        if isinstance(metric, ImageMetric) and len(predictions.class_names) in metric.num_classes
    }
    seen = [hits for hits in predictions.hits_by_class().values() if len(hits)]
    return {**shares, "recall_lowest": lowest_interval(seen), **bootstrap_intervals(predictions)}


def robustness(by_slice: Slices, under: Corrupted) -> dict[str, float]:
    """Return the metrics of slices and of corrupted images, with their intervals."""
    found = {m.name: m.score(by_slice) for m in METRICS if isinstance(m, SliceMetric)}
    found |= {m.name: m.score(under) for m in METRICS if isinstance(m, CorruptionMetric)}
    ends = {"corruption_accuracy": under.interval}
    if by_slice.interval:
        ends["slice_accuracy_lowest"] = by_slice.interval
    return {name: value for name, value in found.items() if value is not None} | flat(ends)


def classes(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return the scores of each class by name, with the interval of its recall."""
    hits = predictions.hits_by_class()
    return {
        name: {**row, **flat({"recall": share_interval(hits[name])})}
        for name, row in by_class(predictions).items()
    }


def flat(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Return intervals as the numbers `<name>_low` and `<name>_high`."""
    ends = [(name, *interval) for name, interval in intervals.items()]
    lows = {f"{name}_low": low for name, low, _ in ends}
    return lows | {f"{name}_high": high for name, _, high in ends}


def bootstrap_intervals(predictions: Predictions, seed: int = 0) -> dict[str, Interval]:
    """Return the intervals of metrics that are not shares of images, from `RESAMPLES` draws.

    Precision, recall, f1 (means of the classes) and loss have the percentiles of the draws. The
    calibration error has the basic bootstrap: it is a sum of distances, which chance makes larger,
    and larger still in the draws. Every interval holds the measured value. A metric that is equal
    in every draw has no interval: a model without mistakes does not show how many it would make.

    Args:
        predictions: the predictions of the test split.
        seed: the seed of the draws; equal input and seed, equal intervals.
    """
    parts = _parts(predictions)
    n, classes = predictions.probabilities.shape
    measured = _metrics(parts.sum(axis=0)[None], classes, n)
    found = {}
    for name, draws in _metrics(_resampled_sums(parts, seed), classes, n).items():
        if np.ptp(draws) < 1e-12:
            continue
        value = float(measured[name][0])
        low, high = map(float, np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
        if name == "calibration_error":
            low, high = max(2 * value - high, 0.0), min(2 * value - low, 1.0)
        found[name] = min(low, value), max(high, value)
    return found


def _parts(predictions: Predictions) -> csr_array:
    """Return what each image adds to the sums from which all metrics follow: (n, columns).

    The columns: right minus confidence by bin; the true class, the predicted class, and the true
    class where both agree; the loss.
    """
    n, classes = predictions.probabilities.shape
    y, right, confidence = predictions.y, predictions.right, predictions.confidence
    one = np.ones(n)
    loss_column = BINS + 3 * classes
    columns = [
        (confidence_bins(confidence), right - confidence.astype(np.float64)),
        (BINS + y, one),
        (BINS + classes + predictions.predicted, one),
        (BINS + 2 * classes + y, right.astype(np.float64)),
        (np.full(n, loss_column), losses(predictions)),
    ]
    rows = np.tile(np.arange(n), len(columns))
    where = np.concatenate([column for column, _ in columns])
    values = np.concatenate([value for _, value in columns])
    return csr_array((values, (rows, where)), shape=(n, loss_column + 1))


def _resampled_sums(parts: csr_array, seed: int) -> Floats:
    """Sum the rows of images that are drawn with replacement: (RESAMPLES, columns)."""
    rng, n, columns = np.random.default_rng(seed), parts.shape[0], parts.T.tocsr()
    sums = np.empty((RESAMPLES, parts.shape[1]))
    for row in sums:
        row[:] = columns @ np.bincount(rng.integers(n, size=n), minlength=n)
    return sums


def _metrics(sums: Floats, classes: int, n: int) -> dict[str, Floats]:
    """Compute the metrics of each row of sums, by name."""
    ends = np.cumsum([BINS, classes, classes, classes])
    gaps, actual, predicted, right, loss = np.split(sums, ends, axis=1)
    # A class without images in a draw is left out of its means. A class that the test split lacks
    # counts as zero, as in the metrics.
    known = (actual > 0) | (actual.sum(axis=0) == 0)
    return {
        "precision": np.average(_ratio(right, predicted), axis=1, weights=known),
        "recall": np.average(_ratio(right, actual), axis=1, weights=known),
        "f1": np.average(_ratio(2 * right, actual + predicted), axis=1, weights=known),
        "calibration_error": np.abs(gaps).sum(axis=1) / n,
        "loss": loss[:, 0] / n,
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; zero where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
