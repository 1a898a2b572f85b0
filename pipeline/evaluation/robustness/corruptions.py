"""Corruptions of images, as a list: what cameras, light and storage do to them, at five severities.

To add one, add an entry to `CORRUPTIONS` and a row to docs/robustness.md. The kinds are the common
ones of ImageNet-C (Hendrycks and Dietterich, 2019). Levels that are in pixels grow with the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.artifacts.datasets import Pixels

SEVERITIES = range(1, 6)
# A blur of these pixels is as strong on images of this side; larger ones are blurred more.
SIDE = 64
Draw = NDArray[np.float32]


@dataclass(frozen=True)
class Corruption:
    """A kind of change of images.

    Attributes:
        name: as tables and figures have it.
        does: what it does, as docs/robustness.md says.
        levels: one for each severity, the mildest first.
        unit: of the levels.
        apply: changes images, given a level and one random number from -1 to 1 for each.
    """

    name: str
    does: str
    levels: tuple[float, float, float, float, float]
    unit: str
    apply: Callable[[Pixels, float, Draw], Pixels]

    def at(self, images: Pixels, severity: int, seed: int = 0) -> Pixels:
        """Return the images as they are at a severity; equal arguments give equal pixels.

        Args:
            images: `uint8` (n, height, width, channels), of one channel or three.
            severity: 1 to 5.
            seed: of what is drawn, which is the same at every severity.
        """
        # One stream for each corruption, so that another one in the list changes none.
        rng = np.random.default_rng([seed, *self.name.encode()])
        draws = rng.uniform(-1, 1, len(images)).astype(np.float32)
        return self.apply(images, self.levels[severity - 1], draws)


def _noise(images: Pixels, level: float, draws: Draw) -> Pixels:
    noisy = np.empty_like(images)
    for image, draw, into in zip(images, draws, noisy, strict=True):
        rng = np.random.default_rng(draw.view(np.uint32))
        noise = rng.standard_normal(image.shape, np.float32)
        into[:] = _rounded(image + np.float32(255 * level) * noise)
    return noisy


def _blur(images: Pixels, level: float, draws: Draw) -> Pixels:
    sigma = level * max(1.0, min(images.shape[1:3]) / SIDE)
    return _by_pillow(images, lambda image, _: image.filter(ImageFilter.GaussianBlur(sigma)))


def _jpeg(images: Pixels, level: float, draws: Draw) -> Pixels:
    def again(image: Image.Image, _: int) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=int(level))
        return Image.open(file)

    return _by_pillow(images, again)


def _brightness(images: Pixels, level: float, draws: Draw) -> Pixels:
    moved = np.where(draws < 0, -255 * level, 255 * level).astype(np.float32)
    return _rounded(images + moved[:, None, None, None])


def _contrast(images: Pixels, level: float, draws: Draw) -> Pixels:
    mean = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _rounded(mean + np.float32(level) * (images - mean))


def _rotation(images: Pixels, level: float, draws: Draw) -> Pixels:
    # The corners show what is at the edge, not black.
    border = -(-max(images.shape[1:3]) // 4)
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="edge")
    resample = Image.Resampling.BILINEAR

    def turned(image: Image.Image, number: int) -> Image.Image:
        return image.rotate(-level if draws[number] < 0 else level, resample)

    height, width = images.shape[1:3]
    return _by_pillow(padded, turned)[:, border : border + height, border : border + width]


def _by_pillow(images: Pixels, change: Callable[[Image.Image, int], Image.Image]) -> Pixels:
    gray = images.shape[3] == 1
    pictures = (Image.fromarray(image[..., 0] if gray else image) for image in images)
    changed = [np.asarray(change(picture, n)) for n, picture in enumerate(pictures)]
    return np.stack(changed).reshape(images.shape)


def _rounded(values: NDArray[np.float32]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption(
        "gaussian noise",
        does="noise of a sensor in poor light",
        levels=(0.04, 0.08, 0.12, 0.18, 0.26),
        unit="standard deviation, of the range",
        apply=_noise,
    ),
    Corruption(
        "blur",
        does="out of focus",
        levels=(0.5, 0.75, 1.0, 1.25, 1.75),
        unit=f"pixels of an image of {SIDE} or fewer, in proportion of larger ones",
        apply=_blur,
    ),
    Corruption(
        "jpeg",
        does="compressed again",
        levels=(80, 60, 40, 20, 10),
        unit="quality",
        apply=_jpeg,
    ),
    Corruption(
        "brightness",
        does="brighter or darker, each for about half of the images",
        levels=(0.1, 0.2, 0.3, 0.4, 0.5),
        unit="of the range",
        apply=_brightness,
    ),
    Corruption(
        "contrast",
        does="nearer to the mean of the image",
        levels=(0.7, 0.5, 0.35, 0.2, 0.1),
        unit="of the contrast that is left",
        apply=_contrast,
    ),
    Corruption(
        "rotation",
        does="turned to the left or to the right",
        levels=(3, 6, 10, 15, 20),
        unit="degrees",
        apply=_rotation,
    ),
)
