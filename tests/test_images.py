"""images: bytes of any kind -> pixels, or a short reason."""

import base64
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from pipeline import images
from pipeline.errors import ImageError
from pipeline.images import (
    ENDINGS,
    EXTENSIONS,
    FORMATS,
    MAX_PIXELS,
    as_base64_png,
    decode,
    read_image,
    to_array,
)
from tests.images import encode, save


@pytest.mark.parametrize("suffix", EXTENSIONS)
@pytest.mark.parametrize("shape", [(8, 6, 3), (30, 40, 1)])
def test_every_format_becomes_the_shape(suffix, shape):
    pixels = decode(encode(suffix=suffix), shape)
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    assert pixels.std() > 5


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_pixels(mode, channels):
    gray = Image.fromarray(np.full((5, 4), 100, np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 4), 100 * 257, np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((5, 4), 100 * 257, np.int32))
    elif mode in ("PA", "LA"):
        image = gray.convert("LA").convert(mode)
    elif mode == "CMYK":
        image = gray.convert("RGB").convert(mode)
    else:
        image = gray.convert(mode, dither=Image.Dither.NONE)
    assert image.mode == mode
    expected = 0 if mode == "1" else 100
    assert np.abs(to_array(image, (5, 4, channels)).astype(int) - expected).max() <= 1


def test_a_size_that_fits_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    assert (decode(save(Image.fromarray(pixels)), (9, 7, 3)) == pixels).all()


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    data = save(Image.fromarray(values))
    assert decode(data, (1, 4, 1)).ravel().tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_sixteen_bit_gray_is_scaled_by_its_range_in_every_format(suffix):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode(save(Image.fromarray(values), suffix), (8, 8, 1))
    assert np.abs(pixels[..., 0] - values / 257).max() <= 0.5


def test_floats_from_0_to_1_are_scaled_and_others_cut_off():
    unit = np.array([[0, 0.25, 1]], np.float32)
    assert decode(save(Image.fromarray(unit), ".tif"), (1, 3, 1)).ravel().tolist() == [0, 64, 255]
    wide = np.array([[-5, 99.6, 300]], np.float32)
    assert decode(save(Image.fromarray(wide), ".tif"), (1, 3, 1)).ravel().tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("fit", "left", "middle"),
    [
        ("stretch", 255, 0),
        ("crop", 0, 0),
        ("pad", 255, 0),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_another_aspect_ratio_is_stretched_cropped_or_padded(suffix, fit, left, middle):
    wide = Image.new("RGB", (80, 20), "white")
    wide.paste("black", (20, 0, 60, 20))  # the middle half, and so all that a square crop sees
    pixels = decode(save(wide, suffix), (20, 20, 3), fit).astype(int)
    assert abs(pixels[10, 1].mean() - left) < 30
    assert abs(pixels[10, 10].mean() - middle) < 30
    # Only padding adds rows, which are black.
    assert (pixels[0].max() < 30) == (fit in ("pad", "crop"))


def test_a_photo_of_108_megapixels_is_read_at_a_fraction_of_its_size():
    photo = save(Image.new("L", (12_000, 9_000), 77), ".jpg")
    assert np.abs(decode(photo, (64, 64, 3)).astype(int) - 77).max() <= 1
    with pytest.raises(ImageError, match="12000 x 9000 is more than the 64,000,000 pixels"):
        decode(photo, (9000, 8000, 1))


def test_heic_without_its_package_says_what_to_install(monkeypatch):
    data = encode(suffix=".heic")
    without = tuple(name for name in FORMATS if name != "HEIF")
    monkeypatch.setattr(images, "_formats", lambda: without)
    Image.init()
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        decode(data, (4, 4, 3))


def test_alpha_is_composed_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert decode(save(image), (1, 2, 3)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = decode(save(image, transparency=0), (1, 2, 3))
    assert pixels.tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the left half becomes the upper one
    pixels = decode(save(image, ".jpg", exif=exif, quality=95), (16, 8, 1))
    assert pixels[:6].mean() > 250
    assert pixels[-6:].mean() < 5


def test_a_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = save(frames[0], ".gif", save_all=True, append_images=frames[1:])
    assert decode(data, (4, 4, 3))[0, 0].tolist() == [255, 0, 0]


def test_shrinking_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    assert np.abs(decode(save(stripes), (8, 8, 1)).astype(int) - 127).max() < 20


def test_a_large_jpeg_keeps_its_shape_and_content():
    image = Image.new("L", (1200, 800), 30)
    image.paste(220, (600, 0, 1200, 800))
    pixels = decode(save(image, ".jpg"), (16, 16, 1))
    assert pixels[:, :7].mean() == pytest.approx(30, abs=3)
    assert pixels[:, 9:].mean() == pytest.approx(220, abs=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "."),
        (encode(suffix=".jpg", size=(64, 64))[:-400], "truncated"),
        (encode(suffix=".png", size=(64, 64))[:-400], "truncated"),
        (save(Image.new("RGB", (4, 4)), ".tga"), "not an image"),
    ],
)
def test_a_bad_image_has_a_short_reason(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, (4, 4, 3))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("suffix", [endings[0] for endings in ENDINGS.values()])
def test_damaged_bytes_give_pixels_or_an_image_error(suffix, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(encode(suffix=suffix, size=(40, 30)))
    for place in rng.integers(0, len(data), 10):
        data[place] = rng.integers(256)
    with suppress(ImageError):  # any other exception fails the test
        assert decode(bytes(data), (8, 8, 3)).shape == (8, 8, 3)


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [8_001, 9_600, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    assert side**2 > MAX_PIXELS
    with pytest.raises(ImageError, match="64,000,000 pixels"):
        read_image(_png_header(side, side))


def test_the_allowed_formats_are_named():
    with pytest.raises(ImageError, match=", ".join(FORMATS)):
        decode(b"GARBAGE", (4, 4, 3))


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 1), (1, 5, 3), (4, 1, 1)])
def test_a_png_keeps_shape_and_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(decode(base64.b64decode(as_base64_png(pixels)), shape), pixels)
