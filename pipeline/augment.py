"""Random changes of training images, inside the compiled graph, drawn anew for each image.

Turning, zooming and shifting are one warp, so that pixels are interpolated once; flips, crops and
cutouts only move or blank pixels.
"""

import math
from typing import Any

import tensorflow as tf

from pipeline.recipes import Augmentation

_DRAWS = 10  # random numbers per image: four of the warp, two each of flip, crop and cutout


def augment(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Change each image of a batch at random.

    Args:
        images: `uint8`, (n, height, width, channels).
        augmentation: what may change, and how far; without any the images come back as they are.
        seed: two integers, other ones for each batch; equal seeds make equal changes.

    Returns:
        `uint8`, of the same shape.
    """
    count = tf.shape(images)[0]
    draws = tf.unstack(tf.random.stateless_uniform([_DRAWS, count], seed))
    if augmentation.rotation or augmentation.zoom or augmentation.shift:
        images = _warp(images, augmentation, draws[:4])
    for axis, mirrored, flip, start in ((1, "vertical", 4, 6), (2, "horizontal", 5, 7)):
        flipped = augmentation.flip in (mirrored, "both")
        if flipped or augmentation.crop:
            coin = draws[flip] if flipped else None
            images = _move(images, axis, coin, augmentation.crop, draws[start])
    if augmentation.cutout:
        images = _cutout(images, augmentation.cutout, draws[8:])
    return images


def _warp(images: Any, augmentation: Augmentation, draws: list[Any]) -> Any:
    """Turn, zoom and shift around the centre, with bilinear interpolation."""
    height, width = images.shape[1:3]
    angle, zoom, move_y, move_x = (2 * draw - 1 for draw in draws)
    angle *= math.radians(augmentation.rotation)
    scale = 1 + augmentation.zoom * zoom
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    # The matrix leads from each pixel of the result back to where its value is found.
    back_x = centre_x + augmentation.shift * width * move_x
    back_y = centre_y + augmentation.shift * height * move_y
    zero = tf.zeros_like(cos)
    matrix = [
        *(cos, -sin, back_x - cos * centre_x + sin * centre_y),
        *(sin, cos, back_y - sin * centre_x - cos * centre_y),
        *(zero, zero),
    ]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack(matrix, axis=1),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode=augmentation.fill.upper(),
        fill_value=0.0,
    )
    return tf.cast(tf.round(warped), tf.uint8)


def _move(images: Any, axis: int, coin: Any, border: int, draw: Any) -> Any:
    """Cut a window of the old size out of the images with a reflected border; mirror half."""
    size = images.shape[axis]
    period = max(2 * (size - 1), 1)
    start = tf.cast(tf.floor(draw * (2 * border + 1)), tf.int32) - border
    indices = tf.math.floormod(start[:, None] + tf.range(size), period)
    indices = tf.minimum(indices, period - indices)
    if coin is not None:
        indices = tf.where(coin[:, None] < 0.5, size - 1 - indices, indices)
    # Picking rows or columns by index is several times faster than a select between two images.
    return tf.gather(images, indices, axis=axis, batch_dims=1)


def _cutout(images: Any, share: float, draws: list[Any]) -> Any:
    """Blank one square that lies inside the image, in black."""
    inside = [_span(size, share, draw) for size, draw in zip(images.shape[1:3], draws, strict=True)]
    square = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return images * tf.cast(~square, tf.uint8)


def _span(size: int, share: float, draw: Any) -> Any:
    """Mark `share` of the positions along a side, in one piece, for each image: (n, size)."""
    length = round(share * size)
    start = tf.floor(draw * (size - length + 1))[:, None]
    positions = tf.range(size, dtype=tf.float32)
    return (positions >= start) & (positions < start + length)
