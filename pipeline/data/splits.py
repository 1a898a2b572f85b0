"""Which images become the test or validation split."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DatasetError

# How the keys of groups of near-duplicates begin; the rest is the lowest content among them.
NEAR_DUPLICATES = "near-duplicates of "


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw a share of each class: at least one image, never all.

    Args:
        labels: class of each image, (n,); every class occurs at least twice.
        fraction: the share to draw.
        seed: equal arguments give equal results.

    Returns:
        Which images are drawn, (n,).
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen


def by_content(
    keys: Iterable[str],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    fraction: float,
    salt: str,
    contents: Iterable[str] = (),
) -> NDArray[np.bool_]:
    """Choose images by a hash of what they are, so that no other image moves them.

    Of a group of near-duplicates either all are chosen or none: all if each of them would be by
    itself. So a near-duplicate that is added moves none from outside to the chosen.

    Adding, removing, renaming or relabelling other images leaves an image on its side. The only
    exceptions are classes in which chance would choose none, or all: they give the image with the
    lowest hash, or keep the one with the highest.

    Args:
        keys: the content or the group of each image; equal keys are on one side.
        labels: class of each image, (n,).
        class_names: for the error.
        fraction: the share to choose, on average.
        salt: another salt gives another choice.
        contents: of each image; needed where there are groups of near-duplicates.

    Returns:
        Which images are chosen, (n,).

    Raises:
        DatasetError: all images of a class have the same key.
    """
    # Equal keys have equal positions, and a million positions take less memory than the keys.
    places = _places(keys, contents, len(labels), salt)
    chosen: NDArray[np.bool_] = places < fraction
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if places[members].min() == places[members].max():
            raise DatasetError(
                f"class {class_names[label]!r} has {len(members)} images, all of the same content "
                "or group, so that they cannot be in two splits; at least two are needed"
            )
        if not chosen[members].any():
            chosen |= places == places[members].min()
        elif chosen[members].all():
            chosen &= places != places[members].max()
    return chosen


def _places(
    keys: Iterable[str], contents: Iterable[str], count: int, salt: str
) -> NDArray[np.float64]:
    """Return the position of each image: that of its key; the highest of its near-duplicates."""
    places = np.zeros(count)
    highest: dict[str, float] = {}
    grouped: list[tuple[int, str]] = []
    for row, (key, content) in enumerate(zip_longest(keys, contents)):
        if key.startswith(NEAR_DUPLICATES):
            grouped.append((row, key))
            highest[key] = max(highest.get(key, 0), _position(content, salt))
        else:
            places[row] = _position(key, salt)
    for row, key in grouped:
        places[row] = highest[key]
    return places


def _position(key: str, salt: str) -> float:
    """Return a number in [0, 1) that depends on key and salt alone."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
