"""95% intervals of shares of images: of one share, and of the lowest of several."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binomtest

from pipeline.evaluation.predictions import Hits

CONFIDENCE = 0.95
RESAMPLES = 2000  # draws of a bootstrap

Interval = tuple[float, float]


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
