"""Above which confidence a model may answer, so that it errs on few enough images.

The loss of an image is 1 where the model answers and is wrong. It falls as the threshold rises, so
the lowest threshold is taken at which an exact binomial bound is met: risk-controlling prediction
sets (Bates et al., 2021, "Distribution-Free, Risk-Controlling Prediction Sets", theorem 1). The
proof is in docs/confidence.md.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ParamsError
from pipeline.evaluation.predictions import Hits

Floats = NDArray[np.float32] | NDArray[np.float64]


def fewest_images(error: float, confidence: float) -> int:
    """Return how many images without a mistake prove an error with a confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - error))


def least_error(images: int, confidence: float) -> float:
    """Return the smallest error that so many images can prove."""
    return float(1 - (1 - confidence) ** (1 / images))


def mistakes_allowed(images: int, error: float, confidence: float) -> int:
    """Return how many of the images may be answered wrongly; -1 where there are too few images.

    The most for which a model that errs on more than `error` of all images makes as few mistakes
    with a probability of at most 1 - confidence.
    """
    from scipy.stats import binom  # takes a second to import

    chances = binom.cdf(np.arange(images + 1), images, error)
    return int(np.searchsorted(chances, 1 - confidence, side="right")) - 1


def threshold(best: Floats, right: Hits, error: float, confidence: float) -> float:
    """Return the confidence above which a model answers.

    Args:
        best: (n,) the probability of the most probable class of each calibration image.
        right: (n,) whether that is the true class.
        error: the share of all images that may be answered wrongly.
        confidence: the probability that this holds.

    Returns:
        A confidence that itself is not answered; 0 where all are.

    Raises:
        ParamsError: n is too small; the message says how many are needed.
    """
    allowed = mistakes_allowed(len(best), error, confidence)
    if allowed < 0:
        raise ParamsError(
            f"{len(best):,} calibration images cannot prove an error of at most "
            f"{100 * error:.3g}% with {100 * confidence:.3g}% confidence: at least "
            f"{fewest_images(error, confidence):,} are needed, of the test split and unseen by the "
            f"model; with those that are here: "
            f"--error {_up(least_error(max(len(best), 1), confidence))}"
        )
    wrong = np.sort(best[~right])[::-1]
    return float(wrong[allowed]) if len(wrong) > allowed else 0.0


def upper_quantile(distances: Floats, share: float) -> float:
    """Return the distance that another image like these exceeds with at most this probability.

    It is the conformal quantile: of n + 1 images in any order, the last one is farther than the
    k-th of the others with a probability of at most 1 - k / (n + 1). Where there are too few
    images for the share it is the largest distance.
    """
    n = len(distances)
    k = min(math.ceil((n + 1) * (1 - share)), n)
    return float(np.sort(distances)[k - 1])


def _up(error: float) -> str:
    """Write an error with two digits, rounded up."""
    digits = 1 - math.floor(math.log10(error))
    return f"{math.ceil(error * 10**digits) / 10**digits:.{digits}f}"
