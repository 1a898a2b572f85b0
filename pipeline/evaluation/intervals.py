"""95% intervals of the metrics: Wilson's for shares of images, most others by the bootstrap."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import beta, binomtest

from pipeline.evaluation.measures import BINS, by_class, confidence_bins, losses
from pipeline.evaluation.metric import ImageMetric
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.predictions import Hits, Predictions

CONFIDENCE = 0.95
RESAMPLES = 2000

Interval = tuple[float, float]
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


def share_interval(hits: Hits) -> Interval:
    """Return the interval of a share (Wilson, 1927): right near 1 and for few images.

    Args:
        hits: (n,) one per image; without images it is 0 to 1.
    """
    if not len(hits):
        return 0.0, 1.0
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def lowest_interval(groups: Sequence[Hits]) -> Interval:
    """Return the interval of the lowest of several shares, from the exact intervals of each.

    The bootstrap would put it too low: the minimum of noisy shares is low by chance, and lower
    still in every draw. Instead, the interval ends at the lowest of the upper ends, which have to
    hold all at once (Bonferroni), and starts at the lowest of the lower ends. The ends are exact,
    because in such thin tails Wilson's intervals hold less often than they should.

    Args:
        groups: the hits of each group; at least one group, with at least one image each.
    """
    n, right = np.array([(len(hits), hits.sum()) for hits in groups]).T
    tail = (1 - CONFIDENCE) / 2
    # Clopper and Pearson, 1934; not a number where an end is 0 or 1.
    lows = beta.ppf(tail, right, n - right + 1)
    highs = beta.isf(tail / len(groups), right + 1, n - right)
    return float(np.nan_to_num(lows, nan=0).min()), float(np.nan_to_num(highs, nan=1).min())


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
