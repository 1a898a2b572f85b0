"""RandAugment (Cubuk et al. 2020): a few of fourteen operations for each image.

Each operation is either a warp, or a table of new values, or a blend with a gray or smooth image.
So all images of a batch take one warp, one table each and one blend, which change nothing where an
image was given another operation. Ranges and bins of the magnitude are those of torchvision.
"""

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.models.augmentation import MOST_MAGNITUDE, RandAugment

OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
DRAWS_PER_OPERATION = 2  # which one, and its sign
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_VALUES = np.arange(256, dtype=np.float32)


def rand_augment(images: Any, changes: RandAugment, fill: str, draws: Any) -> Any:
    """Change each image by operations that are drawn for it, one after the other.

    Args:
        images: `uint8`, (n, height, width, channels).
        changes: how many operations, and how strong they are.
        fill: how pixels are filled that a warp leaves empty.
        draws: random numbers, uniform in [0, 1), (2 * `num_ops`, n).

    Returns:
        `uint8`, of the same shape.
    """
    strength = changes.magnitude / MOST_MAGNITUDE

    def change(number: Any, values: Any) -> Any:
        which, sign = (ops.take(draws, 2 * number + row, axis=0) for row in range(2))
        operation = ops.cast(ops.floor(which * len(OPERATIONS)), "int32")
        return _change(values, operation, ops.cast(sign < 0.5, "int32"), strength, fill)

    # A loop is compiled once, and JAX computes each pass anew only once.
    values = ops.fori_loop(0, changes.num_ops, change, ops.cast(images, "float32"))
    return ops.cast(values, "uint8")


def _change(values: Any, operation: Any, negative: Any, strength: float, fill: str) -> Any:
    """Apply one operation to each image; values are whole numbers before and after."""
    height, width, channels = values.shape[1:]
    both = [_constants(sign * strength, (height, width)) for sign in (1, -1)]
    row = operation + len(OPERATIONS) * negative
    matrices, tables, factors = (
        ops.take(np.concatenate(each), row, axis=0) for each in zip(*both, strict=True)
    )
    values = _warp(values, matrices, fill)
    values = _look_up(values, operation, tables, factors)
    # Where it is for neither of both, the factor is 1.
    factor = ops.where(_drawn(operation, "contrast"), 1.0, factors)[:, None, None, None]
    other = _smooth(values)
    if channels == 3:
        gray = ops.round(ops.sum(values * _LUMA, axis=3, keepdims=True))
        color = _drawn(operation, "color")[:, None, None, None]
        other = ops.where(color, gray, other)
    else:
        factor = ops.where(_drawn(operation, "color")[:, None, None, None], 1.0, factor)
    return ops.round(ops.clip(other + (values - other) * factor, 0.0, 255.0))


def _drawn(operation: Any, name: str) -> Any:
    return ops.equal(operation, OPERATIONS.index(name))


def _constants(
    strength: float, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return what does not depend on the image, for each operation.

    Args:
        strength: from -1 to 1; those without a sign take its amount.
        size: height and width of the images.

    Returns:
        Matrices that map a pixel of the result back to its place, row by row, (14, 6); tables of
        new values, (14, 256); factors of a blend, (14,).
    """
    count = len(OPERATIONS)
    matrices = np.tile(np.array([1, 0, 0, 0, 1, 0], np.float32), (count, 1))
    tables = np.tile(_VALUES, (count, 1))
    factors = np.ones(count, np.float32)
    (height, width), at = size, OPERATIONS.index
    shear = 0.3 * strength
    # Around the corner of the image, which is half a pixel away from the centre of the first one.
    matrices[at("shear_x"), [1, 2]] = shear, shear / 2
    matrices[at("shear_y"), [3, 5]] = shear, shear / 2
    matrices[at("translate_x"), 2] = math.trunc(150 / 331 * width * strength)
    matrices[at("translate_y"), 5] = math.trunc(150 / 331 * height * strength)
    cos, sin = math.cos(math.radians(30 * strength)), math.sin(math.radians(30 * strength))
    x, y = (width - 1) / 2, (height - 1) / 2
    matrices[at("rotate")] = cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    tables[at("brightness")] = np.round(np.clip(_VALUES * (1 + 0.9 * strength), 0, 255))
    lowest = 2 ** round(4 * abs(strength))  # its bit and all above remain
    tables[at("posterize")] = _VALUES // lowest * lowest
    threshold = 255 * (1 - abs(strength))
    tables[at("solarize")] = np.where(threshold <= _VALUES, 255 - _VALUES, _VALUES)
    factors[[at(name) for name in ("color", "contrast", "sharpness")]] = 1 + 0.9 * strength
    return matrices, tables, factors


def _warp(values: Any, matrices: Any, fill: str) -> Any:
    """Move pixels with bilinear interpolation.

    `ops.image.affine_transform` takes fifteen times as long on JAX without a GPU.
    """
    height, width, channels = values.shape[1:]
    a, b, x, c, d, y = (matrices[:, place, None, None] for place in range(6))
    down = np.arange(height, dtype=np.float32)[:, None]
    right = np.arange(width, dtype=np.float32)
    from_x, from_y = a * right + b * down + x, c * right + d * down + y
    flat = ops.reshape(values, (-1, channels))
    first = ops.arange(ops.shape(values)[0], dtype="int32")[:, None, None] * (height * width)
    warped = 0.0
    for row, share_y in _neighbours(from_y, height, fill):
        for column, share_x in _neighbours(from_x, width, fill):
            there = ops.take(flat, first + row * width + column, axis=0)
            warped = warped + there * (share_y * share_x)[..., None]
    return ops.round(warped)


def _neighbours(at: Any, size: int, fill: str) -> list[tuple[Any, Any]]:
    """Return the two pixels that a place lies between, along one axis, and the share of each."""
    low = ops.floor(at)
    found = []
    for there, weight in ((low, 1 - (at - low)), (low + 1, at - low)):
        pixel, share = there, weight
        if fill == "constant":
            share = ops.where(ops.logical_and(there >= 0, there < size), weight, 0.0)
        if fill == "reflect":
            pixel = ops.mod(there, 2 * size)
            pixel = ops.minimum(pixel, 2 * size - 1 - pixel)
        found.append((ops.cast(ops.clip(pixel, 0, size - 1), "int32"), share))
    return found


def _look_up(values: Any, operation: Any, tables: Any, factors: Any) -> Any:
    """Replace values by those of the tables, or of tables that follow from the image."""
    height, width, channels = values.shape[1:]
    images = ops.shape(values)[0]
    first = ops.reshape(ops.arange(images * channels, dtype="int32") * 256, (-1, 1, 1, channels))
    places = first + ops.cast(values, "int32")
    flat = ops.reshape(places, (-1,))
    counts = ops.segment_sum(ops.ones_like(flat), flat, num_segments=images * channels * 256)
    counts = ops.reshape(counts, (-1, channels, 256))
    tables = tables[:, None, :]
    for name, table in (
        ("contrast", _contrast(counts, factors, height * width)),
        ("autocontrast", _autocontrast(counts)),
        ("equalize", _equalize(counts, height * width)),
    ):
        tables = ops.where(_drawn(operation, name)[:, None, None], table, tables)
    return ops.take(ops.reshape(tables, (-1,)), places)


def _contrast(counts: Any, factors: Any, pixels: int) -> Any:
    """Scale the distance to the mean brightness of the image."""
    channels = counts.shape[1]
    luma = _LUMA if channels == 3 else np.full(channels, 1 / channels, np.float32)
    means = ops.sum(ops.cast(counts, "float32") * _VALUES, axis=2) / pixels
    mean = ops.round(ops.sum(means * luma, axis=1))[:, None, None]
    return ops.round(ops.clip(mean + (_VALUES - mean) * factors[:, None, None], 0.0, 255.0))


def _ends(counts: Any) -> tuple[Any, Any]:
    """Return the lowest and the highest value of each channel, (n, channels, 1)."""
    there = ops.cast(counts > 0, "float32")
    low = 255 - ops.max(there * (255 - _VALUES), axis=2, keepdims=True)
    return low, ops.max(there * _VALUES, axis=2, keepdims=True)


def _autocontrast(counts: Any) -> Any:
    """Stretch the values of each channel to 0 to 255."""
    low, high = _ends(counts)
    stretched = (_VALUES - low) * (255 / ops.maximum(high - low, 1.0))
    stretched = ops.round(ops.clip(stretched, 0.0, 255.0))
    return ops.where(high > low, stretched, _VALUES)


def _equalize(counts: Any, pixels: int) -> Any:
    """Make all values of a channel about equally frequent, in whole numbers as Pillow does."""
    _, high = _ends(counts)
    of_highest = ops.sum(ops.where(ops.equal(high, _VALUES), counts, 0), axis=2, keepdims=True)
    step = ops.floor_divide(pixels - of_highest, 255)
    below = _below(counts)
    divisor = ops.maximum(step, 1)
    equal = ops.floor_divide(below + ops.floor_divide(step, 2), divisor)
    return ops.where(step > 0, ops.cast(ops.minimum(equal, 255), "float32"), _VALUES)


def _below(counts: Any) -> Any:
    """Return how many pixels of each channel are lower than each value.

    `ops.cumsum` takes 256 additions for each value on JAX without a GPU; this takes 32.
    """
    blocks = ops.reshape(counts, (-1, counts.shape[1], 16, 16))
    earlier = np.triu(np.ones((16, 16), np.int32), 1)
    within = ops.sum(blocks[..., None] * earlier, axis=3)
    before = ops.sum(ops.sum(blocks, axis=3)[..., None] * earlier, axis=2)
    return ops.reshape(before[..., None] + within, (-1, counts.shape[1], 256))


def _smooth(values: Any) -> Any:
    """Smooth images as Pillow's sharpness does: the pixels at the border stay."""
    height, width = values.shape[1:3]
    sums = ops.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]
    sums = sums[:, :, :-2] + sums[:, :, 1:-1] + sums[:, :, 2:]
    inside = np.zeros((1, height, width, 1), bool)
    inside[:, 1:-1, 1:-1] = True
    return ops.where(inside, ops.round((sums + 4 * values) / 13), values)
