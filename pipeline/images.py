"""One image: the bytes of a file -> a `uint8` array of the shape that a model takes."""

import base64
import io
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.artifacts.record import Fit
from pipeline.errors import ImageError

# By Pillow's format, the endings of its files. HEIF needs the package pillow-heif.
ENDINGS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "JPEG": (".jfif", ".jpeg", ".jpg"),
    "JPEG2000": (".j2k", ".jp2"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
FORMATS = tuple(ENDINGS)
EXTENSIONS = tuple(sorted(ending for endings in ENDINGS.values() for ending in endings))
MAX_PIXELS = 64_000_000
# A JPEG is decoded at a fraction of its size where that is enough.
MAX_JPEG_PIXELS = 256_000_000
Image.MAX_IMAGE_PIXELS = MAX_JPEG_PIXELS
# Pillow warns of a decompression bomb before it refuses one; here the warning is enough.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def has_image_ending(name: str) -> bool:
    """Return whether a file is an image, judged by its name."""
    return name.lower().endswith(EXTENSIONS)


def decode(
    data: bytes, image_shape: tuple[int, int, int], fit: Fit = "stretch"
) -> NDArray[np.uint8]:
    """Decode an image file of any size and mode.

    Args:
        data: the content of a file in one of the `FORMATS`.
        image_shape: height, width and channels (1 or 3) of the result.
        fit: how an image of another aspect ratio becomes that: see `to_array`.

    Returns:
        `uint8`, of `image_shape`.

    Raises:
        ImageError: it is in another format, damaged, or has too many pixels.
    """
    return to_array(read_image(data), image_shape, fit)


def read_image(data: bytes) -> Image.Image:
    """Read the header of an image and check its size; pixels are not decoded yet.

    Raises:
        ImageError: it is in another format, or has more than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more than the {MAX_PIXELS:,} pixels that are allowed") from None
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and "HEIF" not in _formats():
            reason = "a HEIC image, which needs the package pillow-heif: pip install pillow-heif"
            raise ImageError(reason) from None
        raise ImageError(f"not an image; allowed: {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise all kinds of exceptions on damaged bytes
        raise ImageError(_reason(error)) from error
    _check_size(image, MAX_JPEG_PIXELS if image.format == "JPEG" else MAX_PIXELS)
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that can be read here."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return tuple(name for name in FORMATS if name != "HEIF")
    register_heif_opener()
    return FORMATS


def _check_size(image: Image.Image, allowed: int) -> None:
    if image.width * image.height > allowed:
        raise ImageError(
            f"{image.width} x {image.height} is more than the {allowed:,} pixels allowed"
        )


def to_array(
    image: Image.Image, image_shape: tuple[int, int, int], fit: Fit = "stretch"
) -> NDArray[np.uint8]:
    """Decode, turn upright, put over white, scale to 8 bits and resize, as far as is needed.

    Args:
        image: as `read_image` returns it.
        image_shape: height, width and channels (1 or 3) of the result.
        fit: `crop` keeps the aspect ratio and cuts off what is too much, at the sides or above and
            below alike; `pad` keeps it and puts black around; `stretch` does not keep it.

    Raises:
        ImageError: the pixels are truncated or damaged.
    """
    height, width, channels = image_shape
    mode = "L" if channels == 1 else "RGB"
    try:
        # Lets a large JPEG be decoded at half, a quarter or an eighth of its size.
        image.draft(None, (2 * max(height, width),) * 2)
        _check_size(image, MAX_PIXELS)
        image.load()
        image = _opaque(_eight_bit(_upright(image)))
        image = image if image.mode == mode else image.convert(mode)
        if image.size != (width, height):
            image = _RESIZE[fit](image, (width, height), Image.Resampling.BILINEAR)
    except ImageError:
        raise
    except Exception as error:  # see read_image
        raise ImageError(_reason(error)) from error
    pixels: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return pixels.reshape(image_shape)


_RESIZE: dict[Fit, Callable[..., Image.Image]] = {
    "stretch": Image.Image.resize,
    "crop": ImageOps.fit,
    "pad": ImageOps.pad,
}


def as_base64_png(pixels: NDArray[np.uint8]) -> str:
    """Return an image (height, width, channels) as a PNG file in base64, as callers send it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _upright(image: Image.Image) -> Image.Image:
    try:
        # exif_transpose makes a copy even if there is nothing to turn.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged EXIF: the image itself is fine
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray and floats from 0 to 1 to 8 bits; of others keep what fits the range."""
    if image.mode == "F":
        numbers = np.nan_to_num(np.asarray(image))
        scale = 255 if numbers.min() >= 0 and numbers.max() <= 1 else 1
        return Image.fromarray((numbers * scale).round().clip(0, 255).astype(np.uint8))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values: NDArray[Any] = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """Compose an image with transparency over white."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
