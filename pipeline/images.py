"""One image: the bytes of a file -> a `uint8` array of the shape that a model takes."""

import base64
import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.errors import ImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
MAX_PIXELS = 64_000_000
# Pillow warns of a decompression bomb before it refuses one; here the warning is enough.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def has_image_ending(name: str) -> bool:
    """Return whether a file is an image, judged by its name."""
    return name.lower().endswith(EXTENSIONS)


def decode(data: bytes, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode an image file of any size and mode.

    Args:
        data: the content of a JPEG, PNG, BMP, WebP or GIF file.
        image_shape: height, width and channels (1 or 3) of the result.

    Returns:
        `uint8`, of `image_shape`.

    Raises:
        ImageError: it is in another format, damaged, or has too many pixels.
    """
    return to_array(read_image(data), image_shape)


def read_image(data: bytes) -> Image.Image:
    """Read the header of an image and check its size; pixels are not decoded yet.

    Raises:
        ImageError: it is in another format, or has more than `MAX_PIXELS`.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more than the {MAX_PIXELS:,} pixels that are allowed") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image; allowed: {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise all kinds of exceptions on damaged bytes
        raise ImageError(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{image.width} x {image.height} is more than the {MAX_PIXELS:,} pixels allowed"
        )
    return image


def to_array(image: Image.Image, image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Decode, turn upright, put over white, scale to 8 bits and resize, as far as is needed.

    Raises:
        ImageError: the pixels are truncated or damaged.
    """
    height, width, channels = image_shape
    mode = "L" if channels == 1 else "RGB"
    try:
        # Lets a large JPEG be decoded at half, a quarter or an eighth of its size.
        image.draft(None, (2 * max(height, width),) * 2)
        image.load()
        image = _opaque(_eight_bit(_upright(image)))
        image = image if image.mode == mode else image.convert(mode)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # see read_image
        raise ImageError(_reason(error)) from error
    pixels: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return pixels.reshape(image_shape)


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
    """Scale 16-bit gray to 8; of 32-bit integers and floats keep what fits the range."""
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
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
