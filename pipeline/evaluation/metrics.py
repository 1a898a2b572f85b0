"""What is measured of a classifier: pure functions on labels and probabilities.

scikit-learn takes a second to import, so it is imported where it counts: the gate reads this too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels

Probabilities = NDArray[np.float32]  # (n, num_classes), rows sum to 1
BINS = 15


def summarize(
    y: Labels, probabilities: Probabilities, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Measure predictions against the truth.

    Args:
        y: (n,) true labels; n is at least 1.
        probabilities: (n, num_classes).
        class_names: in the order of the labels.

    Returns:
        JSON values: numbers, and under `classes` precision, recall, f1 and support by class name.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    k = top_k(len(class_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        y, predicted, labels=range(len(class_names)), zero_division=0.0
    )
    classes = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(class_names, precision, recall, f1, support, strict=True)
    }
    return {
        "accuracy": float((predicted == y).mean()),
        "loss": cross_entropy(y, probabilities),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "recall_lowest": float(recall[support > 0].min()),
        "f1": float(f1.mean()),
        f"top_{k}_accuracy": top_k_accuracy(y, probabilities, k),
        "calibration_error": calibration_error(y, probabilities),
        "images": len(y),
        "classes": classes,
    }


def losses(y: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return -log of the true class's probability, which counts as 1e-7 at least: (n,)."""
    truth = probabilities[np.arange(len(y)), y].astype(np.float64)
    result: NDArray[np.float64] = -np.log(truth.clip(1e-7, 1))
    return result


def cross_entropy(y: Labels, probabilities: Probabilities) -> float:
    """Return the mean of the losses."""
    return float(losses(y, probabilities).mean())


def top_k(num_classes: int) -> int:
    """Return how many guesses are worth a metric of their own: 3, of few classes 2."""
    return 3 if num_classes > 3 else 2


def in_top(y: Labels, probabilities: Probabilities, k: int) -> NDArray[np.bool_]:
    """Return whether the true class is among the `k` most probable ones: (n,)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    found: NDArray[np.bool_] = (best == y[:, None]).any(axis=1)
    return found


def top_k_accuracy(y: Labels, probabilities: Probabilities, k: int) -> float:
    """Return how often the true class is among the `k` most probable ones."""
    return float(in_top(y, probabilities, k).mean())


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


def confidence_bins(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return which of `BINS` bins of equal width each confidence is in: (n,)."""
    return np.minimum((confidence.astype(np.float64) * BINS).astype(np.int64), BINS - 1)


def reliability(y: Labels, probabilities: Probabilities) -> Reliability:
    """Sort predictions into `BINS` bins of equal width by their confidence."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == y
    bins = confidence_bins(confidence)
    count = np.bincount(bins, minlength=BINS)
    filled = count > 0
    return Reliability(
        confidence=np.bincount(bins, confidence, BINS)[filled] / count[filled],
        accuracy=np.bincount(bins, right, BINS)[filled] / count[filled],
        count=count[filled],
    )


def calibration_error(y: Labels, probabilities: Probabilities) -> float:
    """Return the expected calibration error (Naeini et al., 2015).

    It is the mean distance between confidence and accuracy over the bins, weighted by their
    images: 0 where a confidence of 90% is right nine times in ten.
    """
    bins = reliability(y, probabilities)
    return float(np.abs(bins.accuracy - bins.confidence) @ bins.count / bins.count.sum())


def confusion(y: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Count how often each true class (row) was predicted as each class (column)."""
    from sklearn.metrics import confusion_matrix

    counts: NDArray[np.int64] = confusion_matrix(y, predicted, labels=range(num_classes))
    return counts


@dataclass(frozen=True)
class Confused:
    """A class that is taken for another: how often, and which share of its images."""

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


def most_confidently_wrong(
    y: Labels, probabilities: Probabilities, limit: int = 36
) -> NDArray[np.int64]:
    """Return the indices of misclassified images, the most confident mistake first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:limit]]
