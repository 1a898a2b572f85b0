"""What is measured of predictions, for metrics and figures: pure functions.

scikit-learn takes a second to import, so it is imported where it is used: the gate imports this.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.predictions import Hits, Predictions
from pipeline.models import calibration
from pipeline.models.calibration import BINS, confidence_bins


def by_class(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return `precision`, `recall`, `f1` and `support`, the number of images, by class name.

    The recall of a class without images counts as 0, as does the precision of one that is never
    predicted.
    """
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(
        predictions.y,
        predictions.predicted,
        labels=range(len(predictions.class_names)),
        zero_division=0.0,
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(predictions.class_names, *scores, strict=True)
    }


def class_mean(predictions: Predictions, score: str) -> float:
    """Return the mean over the classes of one of the scores that `by_class` returns."""
    return float(np.mean([row[score] for row in by_class(predictions).values()]))


def losses(predictions: Predictions) -> NDArray[np.float64]:
    """Return -log of the probability of the true class, which is clipped to at least 1e-7: (n,)."""
    y = predictions.y
    truth = predictions.probabilities[np.arange(len(y)), y].astype(np.float64)
    result: NDArray[np.float64] = -np.log(truth.clip(1e-7, 1))
    return result


def cross_entropy(predictions: Predictions) -> float:
    """Return the mean of the losses."""
    return float(losses(predictions).mean())


def in_top(predictions: Predictions, k: int) -> Hits:
    """Return whether the true class is among the `k` most probable ones: (n,).

    Of equal probabilities, the lower label ranks first, as in `argmax`. scikit-learn's
    `top_k_accuracy_score` ranks the higher one first, refuses two classes, and does not say which
    images are hits, which the interval needs.
    """
    best = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :k]
    found: Hits = (best == predictions.y[:, None]).any(axis=1)
    return found


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy by bin of confidence; only bins with images.

    Attributes:
        confidence: (bins,) mean of the highest probability.
        accuracy: (bins,) share that is right.
        count: (bins,) images.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]


def reliability(predictions: Predictions) -> Reliability:
    """Sort predictions into `BINS` bins of equal width by their confidence."""
    confidence, right = predictions.confidence.astype(np.float64), predictions.right
    bins = confidence_bins(confidence)
    count = np.bincount(bins, minlength=BINS)
    filled = count > 0
    return Reliability(
        confidence=np.bincount(bins, confidence, BINS)[filled] / count[filled],
        accuracy=np.bincount(bins, right, BINS)[filled] / count[filled],
        count=count[filled],
    )


def calibration_error(predictions: Predictions) -> float:
    """Return the expected calibration error."""
    return calibration.calibration_error(predictions.confidence, predictions.right)


def confusion(predictions: Predictions) -> NDArray[np.int64]:
    """Count how often each true class (row) was predicted as each class (column)."""
    from sklearn.metrics import confusion_matrix

    labels = range(len(predictions.class_names))
    counts: NDArray[np.int64] = confusion_matrix(
        predictions.y, predictions.predicted, labels=labels
    )
    return counts


@dataclass(frozen=True)
class Confused:
    """Images of a class that are predicted as another: how many, and which share of the class."""

    actual: str
    predicted: str
    count: int
    share: float


def most_confused(
    counts: NDArray[np.int64], class_names: tuple[str, ...], limit: int = 10
) -> list[Confused]:
    """Return the most frequent mistakes of a confusion matrix, the most frequent first."""
    support = counts.sum(axis=1)
    mistakes = counts - np.diag(np.diag(counts))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(i), len(counts)) for i in order]
    return [
        Confused(
            class_names[a], class_names[p], int(counts[a, p]), float(counts[a, p] / support[a])
        )
        for a, p in pairs
        if mistakes[a, p]
    ]


def most_confidently_wrong(predictions: Predictions, limit: int = 36) -> NDArray[np.int64]:
    """Return the indices of misclassified images, the most confident mistake first."""
    wrong = np.flatnonzero(~predictions.right)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")[:limit]]
