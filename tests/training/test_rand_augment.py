import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.models.recipes import Augmentation
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.rand_augment import OPERATIONS

HEIGHT, WIDTH = 40, 60
NEUTRAL_AT_0 = [name for name in OPERATIONS if name not in ("autocontrast", "equalize")]
COUNT = len(OPERATIONS)


def photograph(channels=3, seed=0):
    """Smooth shapes with some noise, neither dark nor bright."""
    draw = np.random.default_rng(seed)
    noise = draw.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)
    layers = [
        np.asarray(Image.fromarray(noise[..., c]).filter(ImageFilter.GaussianBlur(4)), float)
        for c in range(channels)
    ]
    picture = 120 + 4 * (np.stack(layers, axis=2) - 128) + noise / 16
    return np.clip(picture, 20, 230).astype(np.uint8)


def changed(images, operations, positive, **changes):
    """Apply one given operation, or several, to each image."""
    operations, positive = np.atleast_2d(operations), np.atleast_2d(positive)
    given = {"num_ops": len(operations), **changes}
    augmentation = Augmentation(rand_augment=given, fill="constant")
    draws = np.zeros((draws_of(augmentation), len(images)), np.float32)
    draws[23:-4:2] = (operations + 0.5) / COUNT
    draws[24:-4:2] = np.where(positive, 0.75, 0.25)
    return np.asarray(augment(images, augmentation, draws, np.zeros(len(images), bool)))


def with_pillow(name, picture, signed):
    """What torchvision does with Pillow, given the magnitude as a share with its sign."""
    strength, shear = abs(signed), 0.3 * signed
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, math.trunc(150 / 331 * WIDTH * signed), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, math.trunc(150 / 331 * HEIGHT * signed)),
    }
    if name in matrices:
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrices[name], Image.Resampling.BILINEAR
        )
    if name in ("brightness", "color", "contrast", "sharpness"):
        return getattr(ImageEnhance, name.capitalize())(picture).enhance(1 + 0.9 * signed)
    return {
        "identity": lambda: picture,
        "rotate": lambda: picture.rotate(30 * signed, Image.Resampling.BILINEAR),
        "posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * strength)),
        "solarize": lambda: ImageOps.solarize(picture, 255 * (1 - strength)),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
    }[name]()


@pytest.mark.parametrize("magnitude", [9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_does_what_pillow_does(channels, magnitude):
    picture = photograph(channels)
    x = np.repeat(picture[None], 2 * COUNT, axis=0)
    signs = np.repeat([1, -1], COUNT)
    seen = changed(x, np.tile(np.arange(COUNT), 2), signs > 0, magnitude=magnitude)
    alike = picture[..., 0] if channels == 1 else picture
    for name, sign, image in zip(OPERATIONS * 2, signs, seen, strict=True):
        expected = np.asarray(with_pillow(name, Image.fromarray(alike), sign * magnitude / 30))
        difference = np.abs(expected.reshape(picture.shape).astype(int) - image)
        # At the border of what a warp shows Pillow does not mix pixels with what is empty.
        allowed = 0.05 if name.startswith("shear") or name == "rotate" else 0.001
        assert (difference > 1).mean() <= allowed, (name, sign, difference.max())
        same = name == "identity" or (name == "color" and channels == 1)
        assert np.array_equal(image, picture) is same, name


def test_magnitude_0_changes_nothing_but_what_has_no_magnitude():
    x = np.stack([photograph(seed=seed) for seed in range(len(NEUTRAL_AT_0))])
    operations = [OPERATIONS.index(name) for name in NEUTRAL_AT_0]
    seen = changed(x, operations, np.arange(len(x)) % 2 == 0, magnitude=0)
    np.testing.assert_array_equal(seen, x)


def test_two_operations_follow_one_another():
    x, both = np.stack([photograph(seed=seed) for seed in range(2)]), np.ones((2, 2), bool)
    first, second = ([OPERATIONS.index(name)] * 2 for name in ("equalize", "translate_x"))
    at_once, other = (changed(x, order, both) for order in ([first, second], [second, first]))
    one = changed(x, first, both[0])
    np.testing.assert_array_equal(at_once, changed(one, second, both[0]))
    assert (at_once != other).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3), (8, 8, 1)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_tiny_images_are_changed_too(shape, value):
    x = np.full((COUNT, *shape), value, np.uint8)
    seen = changed(x, np.arange(COUNT), np.ones(COUNT, bool), magnitude=30)
    assert (seen.shape, seen.dtype) == (x.shape, np.uint8)
    for name in ("identity", "autocontrast", "equalize", "contrast", "sharpness"):
        np.testing.assert_array_equal(seen[OPERATIONS.index(name)], value, err_msg=name)
