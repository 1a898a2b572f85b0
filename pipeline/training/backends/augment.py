"""Random changes of training images, inside the compiled step, different for each image.

Rotation, zoom and shift are one warp, so that pixels are interpolated once; flip, crop and cutout
only move or blank pixels.
"""

import math
from typing import Any

from keras import ops

from pipeline.models.recipes import Augmentation

DRAWS = 10  # random numbers per image: four of the warp, two each of flip, crop and cutout


def augment(images: Any, augmentation: Augmentation, draws: Any, mirrored: Any) -> Any:
    """Change each image of a batch at random.

    Args:
        images: `uint8`, (n, height, width, channels).
        augmentation: what may change, and by how much; by default nothing.
        draws: random numbers, uniform in [0, 1), (DRAWS, n); equal draws make equal changes.
        mirrored: `bool`, (n,): which images are mirrored from left to right, if `flip` allows it.

    Returns:
        `uint8`, of the same shape.
    """
    if augmentation.rotation or augmentation.zoom or augmentation.shift:
        images = _warp(images, augmentation, draws[:4])
    upside_down = draws[4] < 0.5 if augmentation.flip in ("vertical", "both") else None
    sideways = mirrored if augmentation.mirrors else None
    for axis, flipped, draw in ((1, upside_down, draws[6]), (2, sideways, draws[7])):
        if flipped is not None or augmentation.crop:
            images = _move(images, axis, flipped, augmentation.crop, draw)
    if augmentation.cutout:
        images = _cutout(images, augmentation.cutout, draws[8:])
    return images


def _warp(images: Any, augmentation: Augmentation, draws: Any) -> Any:
    """Rotate, zoom and shift around the centre, with bilinear interpolation."""
    height, width = images.shape[1:3]
    angle, zoom, move_y, move_x = (2 * draws[row] - 1 for row in range(4))
    angle = angle * math.radians(augmentation.rotation)
    scale = 1 + augmentation.zoom * zoom
    cos, sin = ops.cos(angle) / scale, ops.sin(angle) / scale
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    # The matrix maps each pixel of the result back to the place that its value comes from.
    back_x = centre_x + augmentation.shift * width * move_x
    back_y = centre_y + augmentation.shift * height * move_y
    zero = ops.zeros_like(cos)
    matrix = [
        *(cos, -sin, back_x - cos * centre_x + sin * centre_y),
        *(sin, cos, back_y - sin * centre_x - cos * centre_y),
        *(zero, zero),
    ]
    warped = ops.image.affine_transform(
        ops.cast(images, "float32"),
        ops.stack(matrix, axis=1),
        interpolation="bilinear",
        fill_mode=augmentation.fill,
        data_format="channels_last",
    )
    return ops.cast(ops.round(warped), "uint8")


def _move(images: Any, axis: int, flipped: Any, border: int, draw: Any) -> Any:
    """Cut a window of the same size out of images with a reflected border; mirror some."""
    size = images.shape[axis]
    period = max(2 * (size - 1), 1)
    start = ops.cast(ops.floor(draw * (2 * border + 1)), "int32") - border
    indices = ops.mod(start[:, None] + ops.arange(size, dtype="int32"), period)
    indices = ops.minimum(indices, period - indices)
    if flipped is not None:
        indices = ops.where(flipped[:, None], size - 1 - indices, indices)
    # Taking rows or columns by index is several times faster than selecting from two images.
    return ops.vectorized_map(lambda pair: ops.take(*pair, axis=axis - 1), (images, indices))


def _cutout(images: Any, share: float, draws: Any) -> Any:
    """Blank one square inside the image, in black."""
    rows, columns = (_span(images.shape[1 + side], share, draws[side]) for side in range(2))
    square = ops.logical_and(rows[:, :, None, None], columns[:, None, :, None])
    return images * ops.cast(ops.logical_not(square), "uint8")


def _span(size: int, share: float, draw: Any) -> Any:
    """Mark a contiguous `share` of the positions along a side, for each image: (n, size)."""
    length = round(share * size)
    start = ops.floor(draw * (size - length + 1))[:, None]
    positions = ops.arange(size, dtype="float32")
    return ops.logical_and(positions >= start, positions < start + length)
