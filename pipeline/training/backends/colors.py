"""Random changes of colours, different for each image, as one matrix per image."""

import math
from typing import Any

import numpy as np
from keras import ops

from pipeline.models.augmentation import ColorJitter

# Brightness, and two axes of colour around it (NTSC).
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def jitter(images: Any, changes: ColorJitter, draws: Any) -> Any:
    """Change brightness, contrast, saturation and hue, in this order.

    Args:
        images: `uint8`, (n, height, width, channels); unless there are three channels, saturation
            and hue stay.
        changes: the largest change of each.
        draws: random numbers, uniform in [0, 1), (4, n).

    Returns:
        `uint8`, of the same shape.
    """
    brightness, contrast, saturation, hue = (2 * draws[row] - 1 for row in range(4))
    factor = (1 + changes.brightness * brightness)[:, None, None, None]
    kept = (1 + changes.contrast * contrast)[:, None, None, None]
    values = ops.cast(images, "float32") * factor
    channels = images.shape[-1]
    luma = _YIQ[0] if channels == 3 else np.full(channels, 1 / channels)
    if changes.contrast:
        means = ops.mean(values, axis=(1, 2), keepdims=True)
        gray = ops.sum(means * luma.astype(np.float32), axis=3, keepdims=True)
        values = gray + (values - gray) * kept
    if channels == 3 and (changes.saturation or changes.hue):
        turned = _turn(1 + changes.saturation * saturation, 2 * math.pi * changes.hue * hue)
        values = ops.einsum("nhwc,ndc->nhwd", values, turned)
    return ops.cast(ops.round(ops.clip(values, 0.0, 255.0)), "uint8")


def _turn(saturation: Any, angle: Any) -> Any:
    """Return matrices that scale colours and turn them around gray, (n, 3, 3)."""
    cos, sin = saturation * ops.cos(angle), saturation * ops.sin(angle)
    one, zero = ops.ones_like(cos), ops.zeros_like(cos)
    rows = ([one, zero, zero], [zero, cos, -sin], [zero, sin, cos])
    turn = ops.stack([ops.stack(row, axis=1) for row in rows], axis=1)
    there, back = _YIQ.astype(np.float32), np.linalg.inv(_YIQ).astype(np.float32)
    return ops.einsum("ab,nbc,cd->nad", back, turn, there)
