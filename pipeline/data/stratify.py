"""A split that takes the same share of every class."""

import numpy as np
from numpy.typing import NDArray


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose a share of each class: at least one, and not all.

    Args:
        labels: class of each image, (n,); every class occurs at least twice.
        fraction: share to choose.
        seed: of the choice; equal arguments give equal results.

    Returns:
        Which images are chosen, (n,).
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen
