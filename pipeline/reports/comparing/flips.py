"""Flips: test images that one model classifies correctly and the other does not."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts.datasets import Images, Splits, SplitsInfo
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Predictions
from pipeline.images import as_base64_png
from pipeline.registry.passport import test_md5
from pipeline.registry.version_images import VersionImages
from pipeline.reports.comparing.sides import Side
from pipeline.workspace import Workspace

MOST_PIXELS = 160  # a side; larger images are scaled down
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class LocalData:
    """The processed data of this folder.

    Attributes:
        path: `data/processed/<dataset>`.
        info: None where there is none.
        data_md5: the md5 of all of it, see `Arrays.md5`.
    """

    path: Path
    info: SplitsInfo | None
    data_md5: str = ""

    def test_md5_of(self, side: Side) -> str | None:
        """Return the md5 of the test split of a model, as far as it is known here."""
        if side.test_md5 is None and self.info is not None and side.data_md5 == self.data_md5:
            return test_md5(self.info)
        return side.test_md5

    def images_of(self, side: Side) -> VersionImages | None:
        """Return the images of a model, as far as they are known here."""
        images = side.images
        if images is None and self.info is not None and side.data_md5 == self.data_md5:
            # Data of an earlier release may not say it.
            with suppress(ArtifactError):
                images = VersionImages.of(Splits(self.path))
        return images if images and len(images.test_rows) == len(side.predictions.y) else None


def find_data(dataset: str, root: Path) -> LocalData:
    """Find the processed data of a dataset below `root`."""
    splits = Workspace(dataset, root).splits
    try:
        return LocalData(splits.path, splits.info, splits.md5)
    except ArtifactError:
        return LocalData(splits.path, None)


@dataclass(frozen=True)
class Flip:
    """An image that one model has right and the other wrong.

    Attributes:
        number: its index in the test split that is here.
        png: base64 of a PNG.
        small: whether it is so small that its pixels are shown as squares.
        confidence_a: the confidence of `predicted_a`; 0 to 1.
        confidence_b: the confidence of `predicted_b`.
    """

    number: int
    png: str
    small: bool
    true: str
    predicted_a: str
    predicted_b: str
    confidence_a: float
    confidence_b: float


@dataclass(frozen=True)
class Flips:
    """The flips that are shown, right -> wrong and wrong -> right; `reason` says why none are."""

    lost: tuple[Flip, ...] = ()
    won: tuple[Flip, ...] = ()
    reason: str = ""


def show_flips(
    sides: tuple[Side, Side],
    pairs: tuple[Rows, Rows],
    flips: tuple[Rows, Rows],
    local: LocalData,
    most: int,
) -> Flips:
    """Show flips with their images.

    Args:
        sides: both models.
        pairs: (n,) the indices of the images that are compared, in the test split of each.
        flips: which of these go right -> wrong, and wrong -> right.
        local: where the images may be.
        most: how many of each kind are shown.
    """
    if local.info is None:
        return Flips(reason=f"{local.path} is not in this folder; dvc repro preprocess makes it")
    ours = test_md5(local.info)
    here = next((n for n, side in enumerate(sides) if local.test_md5_of(side) == ours), None)
    if here is None:
        return Flips(
            reason=f"{local.path} has another test split than the models; check out the data that "
            "they were made from"
        )
    if reason := _why_not_shown(sides[here], local, local.info):
        return Flips(reason=reason)
    images = Splits(local.path).x("test")
    a, b = (side.predictions.of(rows) for side, rows in zip(sides, pairs, strict=True))
    lost, won = (
        tuple(_flip(row, int(pairs[here][row]), images, a, b) for row in some[:most])
        for some in flips
    )
    return Flips(lost, won)


def _why_not_shown(side: Side, local: LocalData, info: SplitsInfo) -> str:
    """Return why the images of a model's test split cannot be shown; empty where they can."""
    stored = Splits(local.path).measured_md5("x_test.npy")
    same = np.array_equal(Splits(local.path).y("test"), side.predictions.y)
    if stored != info.md5.get("x_test.npy") or not same:
        return f"the files in {local.path} are not those that its metadata.json names; dvc checkout"
    return ""


def _flip(row: int, number: int, images: Images, a: Predictions, b: Predictions) -> Flip:
    row_a, row_b, image = a.probabilities[row], b.probabilities[row], images[number]
    return Flip(
        number=number,
        png=as_base64_png(_small(image)),
        small=max(image.shape[:2]) <= MOST_PIXELS // 2,
        true=a.class_names[a.y[row]],
        predicted_a=a.class_names[row_a.argmax()],
        predicted_b=b.class_names[row_b.argmax()],
        confidence_a=float(row_a.max()),
        confidence_b=float(row_b.max()),
    )


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image, scaled down where it is too large for the page."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    pixels: NDArray[np.uint8] = np.asarray(picture).reshape(picture.height, picture.width, -1)
    return pixels
