"""Made-up images and image folders for the tests."""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener()


def encode(size: tuple[int, int] = (12, 10), suffix: str = ".png", seed: int = 0) -> bytes:
    """Return the bytes of an image of noise."""
    rng = np.random.default_rng(seed)
    return save(Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)), suffix)


def save(image: Image.Image, suffix: str = ".png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def files(
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 4,
    prefix: str = "",
    suffix: str = ".png",
) -> dict[str, bytes]:
    """Return names and bytes of an image folder, each image another."""
    return {
        f"{prefix}{name}/{number}{suffix}": encode(suffix=suffix, seed=100 * label + number)
        for label, name in enumerate(classes)
        for number in range(count)
    }


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def make_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, content: dict[str, bytes], mode: Literal["w", "w:gz"] = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
