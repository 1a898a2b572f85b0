"""The manifest: one row per image, with what can be said of its pixels by themselves."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts import RawDataset, Split
from pipeline.errors import ArtifactError
from pipeline.files import atomic

SPLITS: tuple[Split, ...] = ("train", "test")
# Of brightness, per channel: fine enough to see a shift of one hundredth of the range.
HISTOGRAM_BINS = 64
# Pixels that one thread holds at a time, as eight-byte numbers.
CHUNK_PIXELS = 2**20

Histogram = NDArray[np.int64]  # (channels, HISTOGRAM_BINS)


def build_manifest(raw: RawDataset) -> tuple[pd.DataFrame, Histogram]:
    """Describe every image of a dataset, a few megabytes at a time.

    Returns:
        One row per image, train first, in the order of the arrays: `split`, `file`, `label`,
        `class_name`; `height`, `width` and `mode` of the file; `error`, empty unless it could not
        be decoded; `dtype` and `shape` of its array; `mean`, `std`, `min` and `max` of its pixels,
        their `sha256` and `dhash`, all six empty where there is an error. And the counts of
        pixel values by channel, of all readable images.

    Raises:
        ArtifactError: arrays and `files.parquet` do not have the same number of images.
    """
    try:
        files = pd.read_parquet(raw.files)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {raw.files}: {error}; run ingest again") from error
    parts = [_describe_split(raw, split, files[files["split"] == split]) for split in SPLITS]
    manifest = pd.concat([part for part, _ in parts], ignore_index=True)
    return manifest, np.sum([histogram for _, histogram in parts], axis=0)


def save_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write the manifest as Parquet."""
    with atomic(path) as part:
        manifest.to_parquet(part, index=False)


def _describe_split(
    raw: RawDataset, split: Split, files: pd.DataFrame
) -> tuple[pd.DataFrame, Histogram]:
    x, labels = raw.x(split), raw.y(split)
    if not len(x) == len(labels) == len(files):
        raise ArtifactError(
            f"{raw.path}: {split} has {len(x)} images, {len(labels)} labels and {len(files)} rows "
            "in files.parquet; all must be equal; run ingest again"
        )
    names = dict(enumerate(raw.info.class_names))
    head = files[["split", "file", "height", "width", "mode", "error"]].reset_index(drop=True)
    head.insert(2, "label", labels)
    head.insert(3, "class_name", [names.get(int(label), "") for label in labels])
    head["dtype"] = str(x.dtype)
    head["shape"] = "x".join(map(str, x.shape[1:]))
    readable = head["error"].to_numpy() == ""
    pixels, histogram = describe(x, readable)
    return pd.concat([head, pixels], axis=1), histogram


def describe(x: NDArray[Any], readable: NDArray[np.bool_]) -> tuple[pd.DataFrame, Histogram]:
    """Measure images, those that are not readable with empty values.

    Args:
        x: (n, height, width, channels); other shapes are measured too, so that a check can name
            them.
        readable: (n,).
    """
    images = x.reshape(*(*x.shape, 1, 1)[:3], int(np.prod(x.shape[3:])))
    # Most of numpy lets go of the interpreter lock, so threads share the work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(lambda rows: _measure(images[rows], readable[rows]), _chunks(images)))
    table = pd.concat([pixels for pixels, _ in parts], ignore_index=True)
    return table, np.sum([histogram for _, histogram in parts], axis=0)


def _chunks(images: NDArray[Any]) -> Iterator[slice]:
    """Yield the rows to hold at once; of an empty array one empty slice."""
    size = max(1, CHUNK_PIXELS // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, max(1, len(images)), size):
        yield slice(start, start + size)


def _measure(images: NDArray[Any], readable: NDArray[np.bool_]) -> tuple[pd.DataFrame, Histogram]:
    pixels = images.astype(np.float64)
    flat = pixels.reshape(len(pixels), -1)
    table = pd.DataFrame(
        {
            "mean": flat.mean(axis=1),
            "std": flat.std(axis=1),
            "min": images.min(axis=(1, 2, 3)).astype(np.float64),
            "max": images.max(axis=(1, 2, 3)).astype(np.float64),
            "sha256": pd.Series(
                [hashlib.sha256(image.tobytes()).hexdigest() for image in images], dtype="str"
            ),
            "dhash": pd.Series([f"{h:016x}" for h in dhash(pixels.sum(axis=3))], dtype="str"),
        }
    )
    table.loc[~readable] = np.nan
    return table, _histogram(images[readable])


def _histogram(images: NDArray[Any]) -> Histogram:
    bins = np.clip(images, 0, 255).astype(np.uint8) // (256 // HISTOGRAM_BINS)
    channels = range(images.shape[3])
    return np.stack([np.bincount(bins[..., c].ravel(), minlength=HISTOGRAM_BINS) for c in channels])


def dhash(gray: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the difference hash of images: near-equal ones differ in few of its 64 bits.

    An image is averaged to 8 rows of 9 values; each bit says whether a value is less than its
    right neighbour. See Neal Krawetz, "Kind of Like That", 2013.

    Args:
        gray: (n, height, width), whole numbers.
    """
    _, height, width = gray.shape
    # Whole numbers throughout, so that no rounding decides a bit.
    small = _overlaps(height, 8) @ gray @ _overlaps(width, 9).T
    bits = (small[:, :, :-1] < small[:, :, 1:]).reshape(len(gray), 64)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()


def _overlaps(length: int, cells: int) -> NDArray[np.float64]:
    """How much of each pixel lies in each cell when both divide the same line: (cells, length)."""
    pixels, edges = np.arange(length + 1) * cells, np.arange(cells + 1) * length
    right = np.minimum(edges[1:, None], pixels[None, 1:])
    left = np.maximum(edges[:-1, None], pixels[None, :-1])
    overlaps: NDArray[np.float64] = np.maximum(right - left, 0).astype(np.float64)
    return overlaps
