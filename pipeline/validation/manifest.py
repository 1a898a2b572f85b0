"""The manifest: one row per image, with measures of its pixels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, RawDataset, Split
from pipeline.artifacts.files import atomic, read_array
from pipeline.errors import ArtifactError
from pipeline.parallel import spread
from pipeline.validation.near_duplicates import first_near_duplicate
from pipeline.validation.pixels import Histogram, Measured, joined, measure_rows
from pipeline.validation.shards import measure_shards

SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Pixels per piece of work: enough to be worth handing over.
CHUNK_PIXELS = 2**22
# From this many on, processes are worth their start.
MANY_PIXELS = 2**27


def build_manifest(raw: RawDataset) -> tuple[pd.DataFrame, Histogram]:
    """Describe every image of a dataset, a few megabytes at a time.

    Returns:
        One row per image, train first, in the order of the arrays: `split`, `file`, `label`,
        `class_name`; `height`, `width` and `mode` of the file; `error`, empty unless it could not
        be decoded; `group`, empty where it has none; `dtype` and `shape` of its array; `mean`,
        `std`, `min` and `max` of its pixels, their `sha256` and `dhash`, all six empty where there
        is an error; `near_duplicate_of`, the first row of those that it is a near-duplicate of,
        itself if it is that, else -1. And the counts of pixel values by channel, of all readable
        images.

    Raises:
        ArtifactError: arrays and `files.parquet` do not have the same number of images.
    """
    try:
        files = pd.read_parquet(raw.files)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {raw.files}: {error}; run ingest again") from error
    splits = [split for split in SPLITS if split in raw.info.counts]
    heads = {split: _head(raw, split, files[files["split"] == split]) for split in splits}
    head = pd.concat(heads.values(), ignore_index=True)
    if raw.sharded:
        pixels, histogram = describe_shards(raw, splits, head["error"].to_numpy() == "")
    else:
        pixels, histogram = describe(
            {
                raw.path / f"x_{split}.npy": part["error"].to_numpy() == ""
                for split, part in heads.items()
            }
        )
    return pd.concat([head, pixels], axis=1), histogram


def save_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write the manifest as Parquet."""
    with atomic(path) as part:
        manifest.to_parquet(part, index=False)


def save_unreadable(manifest: pd.DataFrame, path: Path) -> bool:
    """Write the images that could not be decoded, and why, as CSV; return whether there are any."""
    unreadable = manifest.loc[manifest["error"] != "", ["split", "class_name", "file", "error"]]
    if unreadable.empty:
        path.unlink(missing_ok=True)
        return False
    with atomic(path) as part:
        unreadable.to_csv(part, index=False)
    return True


def _head(raw: RawDataset, split: Split, files: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of the images of a split without their pixels."""
    x, labels = raw.x(split), raw.y(split)
    if not len(x) == len(labels) == len(files):
        raise ArtifactError(
            f"{raw.path}: {split} has {len(x)} images, {len(labels)} labels and {len(files)} rows "
            "in files.parquet; all must be equal; run ingest again"
        )
    names = dict(enumerate(raw.info.class_names))
    head = files[["split", "file", "height", "width", "mode", "error"]].reset_index(drop=True)
    head.insert(2, "label", labels)
    head.insert(3, "class_name", [names.get(label, "") for label in labels.tolist()])
    grouped = (files["key"] != files["content"]).to_numpy()
    head["group"] = files["key"].where(grouped, "").to_numpy()
    head["dtype"] = str(x.dtype)
    head["shape"] = "x".join(map(str, x.shape[1:]))
    return head


def describe(readable: Mapping[Path, NDArray[np.bool_]]) -> tuple[pd.DataFrame, Histogram]:
    """Measure the images of some arrays; unreadable ones get empty values.

    Args:
        readable: `.npy` files of images, (n, height, width, channels), and which of their images
            are, (n,). Other shapes are measured too, so that a check can name them.
    """
    pieces = (
        (path, rows, known[rows])
        for path, known in readable.items()
        for rows in _chunks(read_array(path))
    )
    everything = np.concatenate(list(readable.values()))
    many = sum(read_array(path).size for path in readable) >= MANY_PIXELS
    found = joined(part for parts in spread(measure_rows, pieces, many) for part in parts)
    return _table(found, everything, [read_array(path) for path in readable]), found.histogram


def describe_shards(
    raw: RawDataset, splits: Sequence[Split], readable: NDArray[np.bool_]
) -> tuple[pd.DataFrame, Histogram]:
    """Measure the images of a dataset in shards; those of a shard as it was are remembered.

    Args:
        raw: the dataset.
        splits: those to measure.
        readable: which of their images are, (n,).
    """
    rows = np.concatenate([read_array(raw.path / f"rows_{split}.npy") for split in splits])
    there = raw.shards
    counts = np.bincount(rows[readable], minlength=int(there.starts[-1]))
    pixels = int(np.prod(there.image_shape))
    found = measure_shards(
        raw, counts, max(1, CHUNK_PIXELS // pixels), len(counts) * pixels >= MANY_PIXELS
    )
    return _table(found.at(rows), readable, [raw.x(split) for split in splits]), found.histogram


def _table(found: Measured, readable: NDArray[np.bool_], splits: Sequence[Images]) -> pd.DataFrame:
    columns: dict[str, Any] = vars(found).copy()
    twins = first_near_duplicate(columns, splits, readable)
    del columns["histogram"], columns["coarse"]
    columns |= {name: _hexadecimal(columns[name]) for name in ("sha256", "dhash")}
    table = pd.DataFrame(columns)
    if not readable.all():
        table.loc[~readable] = np.nan
    table["near_duplicate_of"] = twins
    return table


def _chunks(images: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of rows that fit in memory together; one empty slice for an empty array."""
    size = max(1, CHUNK_PIXELS // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, max(1, len(images)), size):
        yield slice(start, start + size)


def _hexadecimal(rows: NDArray[np.uint8]) -> pd.Series:
    """Write each row of bytes as text."""
    text = rows.tobytes().hex().encode()
    ends = np.arange(0, len(text) + 1, 2 * rows.shape[1])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(text)]
    return pd.Series(pa.Array.from_buffers(pa.large_string(), len(rows), buffers), dtype="str")
