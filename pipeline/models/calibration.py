"""How far the confidence of predictions is from their accuracy."""

import numpy as np
from numpy.typing import NDArray

BINS = 15


def confidence_bins(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return which of `BINS` bins of equal width each confidence is in: (n,)."""
    return np.minimum((confidence.astype(np.float64) * BINS).astype(np.int64), BINS - 1)


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Naeini et al., 2015).

    It is the mean distance between confidence and accuracy over the bins, weighted by their
    images: 0 where a confidence of 90% is right nine times in ten.

    Args:
        confidence: (n,) the highest probability of each image.
        right: (n,) whether it is that of the true class.
    """
    gaps = np.bincount(confidence_bins(confidence), right - confidence.astype(np.float64), BINS)
    return float(np.abs(gaps).sum() / len(confidence))
