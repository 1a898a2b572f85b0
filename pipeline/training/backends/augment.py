"""Random changes of training images, inside the compiled step, different for each image.

Rotation, zoom and shift are one warp, so that pixels are interpolated once; flip, crop and cutout
only move or blank pixels.
"""

import math
from typing import Any

from keras import ops

from pipeline.models.augmentation import Augmentation, ColorJitter
from pipeline.training.backends.colors import jitter
from pipeline.training.backends.mixing import mixes, rectangles
from pipeline.training.backends.rand_augment import DRAWS_PER_OPERATION, rand_augment

DRAWS = 10  # random numbers per image: four of the warp, two each of flip, crop and cutout
ALL_DRAWS = 27  # four more of the crop, four of the colours, five of erasing, four of mixing
_BEFORE_MIXING = 23
# Of random-resized crop and random erasing, as their papers have them.
_MOST_UNEVEN_CROP = 4 / 3
_ERASED, _MOST_UNEVEN_RECTANGLE = (0.02, 1 / 3), 10 / 3


def draws_of(augmentation: Augmentation) -> int:
    """Return how many random numbers an image needs."""
    if drawn := augmentation.rand_augment:
        return ALL_DRAWS + DRAWS_PER_OPERATION * drawn.num_ops  # before those of mixing
    more = augmentation.random_resized_crop or augmentation.random_erasing or mixes(augmentation)
    return ALL_DRAWS if more or augmentation.color_jitter != ColorJitter() else DRAWS


def augment(images: Any, augmentation: Augmentation, draws: Any, mirrored: Any) -> Any:
    """Change each image of a batch at random.

    Args:
        images: `uint8`, (n, height, width, channels).
        augmentation: what may change, and by how much; by default nothing.
        draws: random numbers, uniform in [0, 1), (`draws_of`, n); equal draws make equal changes.
        mirrored: `bool`, (n,): which images are mirrored from left to right, if `flip` allows it.

    Returns:
        `uint8`, of the same shape.
    """
    moves = augmentation.rotation or augmentation.zoom or augmentation.shift
    if moves or augmentation.random_resized_crop:
        images = _warp(images, augmentation, draws)
    upside_down = draws[4] < 0.5 if augmentation.flip in ("vertical", "both") else None
    sideways = mirrored if augmentation.mirrors else None
    for axis, flipped, draw in ((1, upside_down, draws[6]), (2, sideways, draws[7])):
        if flipped is not None or augmentation.crop:
            images = _move(images, axis, flipped, augmentation.crop, draw)
    if augmentation.rand_augment:
        drawn = draws[_BEFORE_MIXING:-4]
        images = rand_augment(images, augmentation.rand_augment, augmentation.fill, drawn)
    if augmentation.cutout:
        images = _cutout(images, augmentation.cutout, draws[8:10])
    if augmentation.color_jitter != ColorJitter():
        images = jitter(images, augmentation.color_jitter, draws[14:18])
    if augmentation.random_erasing:
        images = _erase(images, augmentation.random_erasing, draws[18:23])
    return images


def _warp(images: Any, augmentation: Augmentation, draws: Any) -> Any:
    """Rotate, zoom and shift around the centre, and crop, with bilinear interpolation."""
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
    rows = [
        [cos, -sin, back_x - cos * centre_x + sin * centre_y],
        [sin, cos, back_y - sin * centre_x - cos * centre_y],
    ]
    if least := augmentation.random_resized_crop:
        rows = _within_crop(rows, (height, width), least, draws[10:14])
    matrix = [*rows[0], *rows[1], zero, zero]
    warped = ops.image.affine_transform(
        ops.cast(images, "float32"),
        ops.stack(matrix, axis=1),
        interpolation="bilinear",
        fill_mode=augmentation.fill,
        data_format="channels_last",
    )
    return ops.cast(ops.round(warped), "uint8")


def _within_crop(rows: Any, size: tuple[int, int], least: float, draws: Any) -> Any:
    """Let a matrix lead to a random part of the image, from pixel to pixel of its corners."""
    tall, wide = _sides(least + (1 - least) * draws[0], _MOST_UNEVEN_CROP, draws[1])
    left = draws[2] * (1 - wide) * (size[1] - 1)
    top = draws[3] * (1 - tall) * (size[0] - 1)
    (a, b, x), (c, d, y) = rows
    return [[wide * a, wide * b, wide * x + left], [tall * c, tall * d, tall * y + top]]


def _sides(area: Any, most_uneven: float, draw: Any) -> tuple[Any, Any]:
    """Return the sides of rectangles of some area, all as fractions of the image's."""
    uneven = ops.exp((2 * draw - 1) * math.log(most_uneven))
    tall, wide = ops.sqrt(area / uneven), ops.sqrt(area * uneven)
    return ops.minimum(tall, 1.0), ops.minimum(wide, 1.0)


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


def _erase(images: Any, probability: float, draws: Any) -> Any:
    """Blank one rectangle inside some of the images, in black."""
    least, most = _ERASED
    sides = _sides(least + (most - least) * draws[1], _MOST_UNEVEN_RECTANGLE, draws[2])
    inside, _ = rectangles(images.shape[1:3], sides, draws[3:5])
    erased = ops.logical_and(inside, draws[0][:, None, None, None] < probability)
    return images * ops.cast(ops.logical_not(erased), "uint8")
