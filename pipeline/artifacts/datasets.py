"""Datasets on disk: arrays of images and labels, and what is known of them."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.artifacts.files import dvc_md5, md5_of_folder, read_array, write_array
from pipeline.artifacts.record import Fit, Record
from pipeline.artifacts.shards import INDEX, SHARDS, Rows, ShardList, digest_of

Pixels = NDArray[np.uint8]  # in memory or mapped: (n, height, width, channels)
Images = Pixels | Rows  # of a split, which may lie in shards
Vectors = NDArray[np.float32]  # the features of images: (n, d)


Labels = NDArray[np.int64]  # (n,), each the index of a class name


Contents = NDArray[np.uint64]  # (n,), each the start of the sha256 of an image's file

Values = NDArray[Any]  # (n,) numbers or texts

Split = Literal["train", "val", "test"]
# What begins the names of other columns of a table of labels, in `files.parquet`.
COLUMN = "column:"
# Among the endings of files that are not read.
NO_ENDING = "without an ending"


def contents_of_sha256(sums: Iterable[str]) -> Contents:
    """Return the start of the sha256 of each file."""
    return np.fromiter((int(sha256[:16], 16) for sha256 in sums), np.uint64)


class DatasetInfo(Record):
    """What is known of a dataset besides its pixels.

    Attributes:
        image_shape: height, width, channels.
        counts: images per split.
        expected: counts that the known dataset must have; None for own images.
        origin: for each file it was made from: where it came from and the sha256 of its content.
        intended_use: empty where nobody has stated it.
        ignored: files of the source that are not read, by ending or system folder.
        fit: how images of another aspect ratio are resized; a model is asked in the same way.
        forgotten: images that are kept out because `data/forgotten.csv` names them.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    counts: dict[str, int]
    expected: dict[str, int] | None = None
    origin: tuple[dict[str, str], ...] = ()
    licence: str = "not stated"
    intended_use: str = ""
    ignored: dict[str, int] = Field(default_factory=dict)
    fit: Fit = "stretch"
    forgotten: int = 0

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


class SplitsInfo(DatasetInfo):
    """The same of the data that is trained on.

    Attributes:
        md5: by `<array>_<split>.npy`, what tells its content: the md5 of the file; of images in
            shards, an md5 over the shape and the sha256 of each image, in order.
        raw_md5: the md5 of the raw dataset it was made from, see `Arrays.md5`.
        warnings: names of the checks that warned.
    """

    md5: dict[str, str]
    raw_md5: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Arrays:
    """A folder of images and labels by split, with its `metadata.json`.

    Labels are in `y_<split>.npy`. The images of a dataset that never grows are in
    `x_<split>.npy`; those of others are rows of shards: `rows_<split>.npy` says which, and
    `shards.json` where the shards are.
    """

    path: Path

    @property
    def sharded(self) -> bool:
        """Whether the images lie in shards."""
        return (self.path / SHARDS).exists()

    @property
    def shards(self) -> ShardList:
        """The shards that the images lie in."""
        return ShardList.load(self.path / SHARDS)

    def x(self, split: Split) -> Images:
        """Return the images of a split, which are read where they are indexed.

        They are `uint8`, (n, height, width, channels): a memory map, or rows of shards.
        """
        if not self.sharded:
            return read_array(self.path / f"x_{split}.npy")
        there, rows = self.shards, read_array(self.path / f"rows_{split}.npy")
        return Rows(there.paths(self.path), there.starts, rows, there.image_shape)

    def y(self, split: Split) -> Labels:
        """Memory-map the labels of a split: `int64`, (n,)."""
        return read_array(self.path / f"y_{split}.npy")

    @property
    def md5(self) -> str:
        """What tells the content: the md5 under which DVC stores the folder.

        Where images lie in shards, it is that of the other files, which have the sha256 of each
        image: in which shards these are depends on the order in which they came.
        """
        if not self.sharded:
            return dvc_md5(self.path)
        laid_out = {SHARDS, INDEX, *(shard.name for shard in self.shards.shards)}
        files = (file for file in self.path.iterdir() if file.name not in laid_out)
        return md5_of_folder(self.path, (f for f in files if not f.name.startswith("rows_")))

    def measured_md5(self, array: str) -> str:
        """Read an array, and return what `SplitsInfo.md5` says of its content; empty without one.

        Args:
            array: the name of its file, such as `x_test.npy`, also where images lie in shards.
        """
        if (self.path / array).is_file():
            return dvc_md5(self.path / array)
        kind, _, split = array.removesuffix(".npy").partition("_")
        if kind != "x" or not (self.path / f"rows_{split}.npy").is_file():
            return ""
        x = self.x(cast("Split", split))
        return digest_of((hashlib.sha256(image.tobytes()).digest() for image in x), x.shape[1:])

    def save_split(self, split: Split, x: Pixels, y: Labels) -> None:
        """Write both arrays of a split."""
        write_array(self.path / f"x_{split}.npy", x)
        write_array(self.path / f"y_{split}.npy", y.astype(np.int64))


class RawDataset(Arrays):
    """`data/raw/<dataset>/`: the images as they came, all of one shape, with `files.parquet`.

    `files.parquet` has one row per image, those of `train` first, each split in the order of its
    arrays: `split`, `file`, `height`, `width`, `mode` (Pillow's), `error`, which is empty unless
    the image could not be decoded (its pixels are then zero), `key`: images of one key, a hash
    of the file or a group, are in one split; it is empty where the dataset has splits of its own;
    `content`, the sha256 of the file, or of the pixels where there are no files; and
    `column:<name>` for each other column of a table of labels, as text.
    """

    @property
    def info(self) -> DatasetInfo:
        """Its metadata, written last: a folder without it is not a dataset."""
        return DatasetInfo.load(self.path / "metadata.json")

    @property
    def files(self) -> Path:
        """The path of `files.parquet`."""
        return self.path / "files.parquet"

    def keys(self, split: Split) -> Iterator[str]:
        """Yield what decides the split of each image; all are empty where the dataset does."""
        return self._column("key", split)

    def sha256(self, split: Split) -> Iterator[str]:
        """Yield the sha256 of the file of each image."""
        return self._column("content", split)

    def contents(self, split: Split) -> Contents:
        """Return what tells each image from others, whatever its name and size here: (n,)."""
        if self.sharded:
            return read_array(self.path / f"content_{split}.npy")
        return contents_of_sha256(self.sha256(split))

    def _column(self, name: str, split: Split) -> Iterator[str]:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        # A few rows at a time: there may be a million.
        with pq.ParquetFile(self.files, pre_buffer=False) as file:
            for batch in file.iter_batches(4096, columns=["split", name], use_threads=False):
                yield from batch.filter(pc.equal(batch["split"], split))[name].to_pylist()


class Splits(Arrays):
    """`data/processed/<dataset>/`: train, val and test, ready to be trained on."""

    def recorded(self, split: Split) -> dict[str, Values]:
        """Return what is known of the file of each image; nothing where it was not kept.

        It has `height`, `width`, `group`, which is empty where there is none, and `column:<name>`
        for each other column of a table of labels, as texts.
        """
        path = self.recorded_file(split)
        if not path.exists():
            return {}
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return {
            name: np.array(column.to_pylist(), None if name in ("height", "width") else object)
            for name, column in zip(table.column_names, table.columns, strict=True)
        }

    def recorded_file(self, split: Split) -> Path:
        """Return the path of what `recorded` reads."""
        return self.path / f"recorded_{split}.parquet"

    def contents(self, split: Split) -> Contents:
        """Memory-map what tells each image from others: see `RawDataset.contents`."""
        return read_array(self.path / f"content_{split}.npy")

    @property
    def info(self) -> SplitsInfo:
        """Its metadata, written last."""
        return SplitsInfo.load(self.path / "metadata.json")
