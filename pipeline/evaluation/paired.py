"""Two models on the same images: by how much one is better, and whether that may be chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]  # (n,), whether each image is classified correctly
RESAMPLES = 10_000


@dataclass(frozen=True)
class McNemar:
    """The images that exactly one of two models, a and b, classifies correctly.

    Attributes:
        only_a: the number of images that only a classifies correctly.
        only_b: the number of images that only b classifies correctly.
        p_better: how likely b would be ahead by that much or more if both were equally good.
    """

    only_a: int
    only_b: int
    p_better: float


def mcnemar(right_a: Right, right_b: Right) -> McNemar:
    """Test whether b is better than a (McNemar, 1947): one-sided and exact.

    Args:
        right_a: (n,).
        right_b: (n,), of the same images in the same order.

    Returns:
        The counts and the p-value, which is 1 where both classify the same images correctly.

    Raises:
        ValueError: they are not for the same images.
    """
    from scipy.special import bdtrc  # slow to import, and a first version is compared with none

    if right_a.shape != right_b.shape:
        raise ValueError(f"{right_a.shape} and {right_b.shape} images cannot be paired")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    differing = only_a + only_b
    # P(X >= only_b) of a binomial X, as scipy.stats.binomtest, which takes far longer to import.
    p = float(bdtrc(only_b - 1, differing, 0.5)) if differing else 1.0
    return McNemar(only_a, only_b, p)


def paired_interval(
    right_a: Right, right_b: Right, confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Return the interval of accuracy_b - accuracy_a: percentiles of `RESAMPLES` bootstraps.

    Args:
        right_a: (n,); n is at least 1.
        right_b: (n,), of the same images in the same order.
        confidence: between 0 and 1.
        seed: the seed of the draws; equal input and seed, equal interval.

    Raises:
        ValueError: they are not for the same images.
    """
    pairs, n = mcnemar(right_a, right_b), len(right_a)
    # Only the numbers of these three kinds matter, so drawing n images is one multinomial draw.
    kinds = np.array([pairs.only_a, pairs.only_b, n - pairs.only_a - pairs.only_b])
    draws = np.random.default_rng(seed).multinomial(n, kinds / n, RESAMPLES)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / n, tails)
    return float(low), float(high)
