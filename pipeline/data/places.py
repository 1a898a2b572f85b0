"""Where an image is in the datasets that were ingested here: by content, by pixels, by looks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import RawDataset, Split
from pipeline.errors import ArtifactError, ImageError
from pipeline.images import decode
from pipeline.similar import MOST_BITS, alike, dhash, thumbnails
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pandas import DataFrame

# How a place was found: the file itself, another file of equal pixels, or one that looks alike.
How = Literal["the same file", "the same pixels", "looks like it"]
# Of the images whose hash is close, so many are looked at, the closest first.
MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class Place:
    """An image of a dataset.

    Attributes:
        file: its name in the source of the dataset.
        content: the sha256 by which the dataset and versions know it.
    """

    dataset: str
    split: str
    label: str
    file: str
    content: str
    how: How


@dataclass(frozen=True)
class Found:
    """An image file, and where it is.

    Attributes:
        file: its path.
        content: the sha256 of the file.
        contents: each sha256 that a dataset or a version may know it by, and how that was found.
    """

    file: str
    content: str
    places: tuple[Place, ...]
    contents: dict[str, How]


class Datasets:
    """The datasets below a project's folder."""

    def __init__(self, root: Path = Path()) -> None:
        found = sorted((root / "data" / "raw").glob("*/metadata.json"))
        self._datasets = [_Searched(RawDataset(file.parent), root) for file in found]

    def find(self, file: Path) -> Found:
        """Return where an image is: what looks like it only where it is not there itself.

        Args:
            file: one that is no image is found by content alone.

        Raises:
            ImageError: it cannot be read.
            ArtifactError: a dataset is torn.
        """
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ImageError(f"{file} cannot be read: {error.strerror or error}") from None
        content = hashlib.sha256(data).hexdigest()
        contents: dict[str, How] = {content: "the same file"}
        places: list[Place] = []
        for dataset in self._datasets:
            if pixels := dataset.content_of(data):
                contents[pixels] = "the same pixels"
            places += dataset.places(data)
        contents |= {place.content: place.how for place in reversed(places)}
        return Found(str(file), content, tuple(places), contents)


class _Searched:
    """A dataset, whose tables are read once."""

    def __init__(self, raw: RawDataset, root: Path) -> None:
        import pandas as pd

        self._raw, self._info = raw, raw.info
        manifest = Workspace(self._info.name, root).validation / "manifest.parquet"
        try:
            self._files = pd.read_parquet(raw.files, columns=["split", "file", "content"])
            # A dataset that was not validated is searched by content alone.
            self._measured = (
                pd.read_parquet(manifest, columns=["sha256", "dhash"])
                if manifest.exists()
                else self._files.iloc[:0]
            )
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{raw.path}: {error}; run dvc repro validate") from error
        self._files["row"] = self._files.groupby("split").cumcount()

    def content_of(self, data: bytes) -> str:
        """Return by what a known dataset, which has no files, knows an image; else nothing."""
        pixels = self._decoded(data) if self._info.expected is not None else None
        return "" if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest()

    def _decoded(self, data: bytes) -> NDArray[np.uint8] | None:
        try:
            return decode(data, self._info.image_shape, self._info.fit)
        except ImageError:
            return None

    def places(self, data: bytes) -> Iterator[Place]:
        content = self._files["content"]
        exact = self._files[content == hashlib.sha256(data).hexdigest()]
        if len(exact):
            return self._named(exact, "the same file")
        if (pixels := self._decoded(data)) is None:
            return iter(())
        sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
        same = (content == sha256).to_numpy()
        measured = len(self._measured) == len(self._files)
        if measured:
            same = same | (self._measured["sha256"] == sha256).to_numpy()
        if same.any() or not measured:
            return self._named(self._files[same], "the same pixels")
        return self._named(self._files.iloc[self._alike(pixels)], "looks like it")

    def _named(self, rows: "DataFrame", how: How) -> Iterator[Place]:
        for split, file, content, row in rows.itertuples(index=False):
            label = self._info.class_names[self._raw.y(split)[row]]
            yield Place(self._info.name, split, label, file, content, how)

    def _alike(self, pixels: NDArray[np.uint8]) -> list[int]:
        gray = pixels.sum(axis=2, dtype=np.float64)[None]
        hashes = np.array(
            [int(text, 16) for text in self._measured["dhash"].fillna("0")], np.uint64
        )
        apart = np.bitwise_count(hashes ^ dhash(gray)[0])
        close = np.flatnonzero(apart <= MOST_BITS)
        close = close[np.argsort(apart[close], kind="stable")][:MOST_LOOKED_AT]
        wanted = thumbnails(gray)
        return [row for row in close.tolist() if alike(thumbnails(self._gray(row)), wanted)[0]]

    def _gray(self, place: int) -> NDArray[np.float64]:
        split: Split = self._files["split"].iloc[place]
        pixels = self._raw.x(split)[int(self._files["row"].iloc[place])]
        gray: NDArray[np.float64] = np.asarray(pixels).sum(axis=2, dtype=np.float64)[None]
        return gray
