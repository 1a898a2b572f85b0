"""MixUp and CutMix: each image of a batch with the one before it, which is a random one."""

from typing import Any

import numpy as np
from keras import ops

from pipeline.models.augmentation import Augmentation

_QUANTILES = 4096


def mixes(augmentation: Augmentation) -> bool:
    """Whether images are mixed with each other."""
    return bool(augmentation.mixup or augmentation.cutmix)


def mix(
    images: Any, labels: Any, augmentation: Augmentation, draws: Any, num_classes: int
) -> tuple[Any, Any, Any]:
    """Mix images, and their labels by as much.

    Args:
        images: `uint8`, (n, height, width, channels).
        labels: `int32`, (n,).
        augmentation: says whether and how.
        draws: random numbers, uniform in [0, 1), (4, n).
        num_classes: the number of classes.

    Returns:
        The images; what the model is to answer, probabilities (n, num_classes); and the label of
        which each image has more. Without mixing, images, labels and labels.
    """
    if not mixes(augmentation):
        return images, labels, labels
    others, other_labels = ops.roll(images, 1, axis=0), ops.roll(labels, 1, axis=0)
    mixed: list[tuple[Any, Any]] = []
    if augmentation.mixup:
        share = _beta(augmentation.mixup, draws[1])
        kept, added = (ops.cast(each, "float32") for each in (images, others))
        blend = added + (kept - added) * share[:, None, None, None]
        mixed.append((ops.cast(ops.round(blend), "uint8"), share))
    if augmentation.cutmix:
        side = ops.sqrt(1.0 - _beta(augmentation.cutmix, draws[1]))
        inside, area = rectangles(images.shape[1:3], (side, side), draws[2:4])
        mixed.append((ops.where(inside, others, images), 1.0 - area))
    images, share = mixed[0]
    if len(mixed) == 2:
        first = draws[0] < 0.5
        images = ops.where(first[:, None, None, None], images, mixed[1][0])
        share = ops.where(first, share, mixed[1][1])
    own, other = (ops.one_hot(each, num_classes) for each in (labels, other_labels))
    targets = own * share[:, None] + other * (1.0 - share[:, None])
    return images, targets, ops.where(share >= 0.5, labels, other_labels)


def rectangles(size: tuple[int, int], sides: tuple[Any, Any], draws: Any) -> tuple[Any, Any]:
    """Place a rectangle at random inside each image.

    Args:
        size: height and width of the images in pixels.
        sides: those of the rectangles, as fractions, (n,) each.
        draws: where they lie, (2, n).

    Returns:
        Which pixels are inside, (n, height, width, 1), and which share of all pixels that is.
    """
    spans, area = [], 1.0
    for pixels, side, draw in zip(size, sides, (draws[0], draws[1]), strict=True):
        length = ops.round(side * pixels)
        start = ops.floor(draw * (pixels - length + 1))[:, None]
        at = ops.arange(pixels, dtype="float32")
        spans.append(ops.logical_and(at >= start, at < start + length[:, None]))
        area = area * length / pixels
    rows, columns = spans
    return ops.logical_and(rows[:, :, None, None], columns[:, None, :, None]), area


def _beta(alpha: float, draw: Any) -> Any:
    """Turn uniform numbers into numbers of Beta(alpha, alpha), alike on every backend."""
    from scipy.special import betaincinv

    table = betaincinv(alpha, alpha, np.linspace(0, 1, _QUANTILES + 1)).astype(np.float32)
    place = draw * _QUANTILES
    low = ops.minimum(ops.cast(ops.floor(place), "int32"), _QUANTILES - 1)
    below, above = ops.take(table, low), ops.take(table, low + 1)
    return below + (above - below) * (place - ops.cast(low, "float32"))
