"""The images that one model has right and the other wrong, from the test split of this folder."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts.datasets import Splits, SplitsInfo
from pipeline.artifacts.files import dvc_md5
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Predictions
from pipeline.registry.passport import test_md5
from pipeline.reports.comparing.sides import Side
from pipeline.workspace import Workspace

MOST_PIXELS = 160  # of a side; larger images are made smaller


@dataclass(frozen=True)
class Here:
    """The processed data of this folder.

    Attributes:
        path: of the folder.
        info: None where there is none.
        data_md5: DVC's md5 of all of it.
    """

    path: Path
    info: SplitsInfo | None
    data_md5: str = ""

    def test_md5_of(self, side: Side) -> str | None:
        """Return the md5 of the test split of a model, as far as its data is known here."""
        if side.test_md5 is None and self.info is not None and side.data_md5 == self.data_md5:
            return test_md5(self.info)
        return side.test_md5


def look(dataset: str, root: Path) -> Here:
    """Look for the processed data of a dataset in `root`."""
    splits = Workspace(dataset, root).splits
    try:
        return Here(splits.path, splits.info, dvc_md5(splits.path))
    except ArtifactError:
        return Here(splits.path, None)


@dataclass(frozen=True)
class Card:
    """One image and what both models say of it.

    Attributes:
        number: its row in the test split.
        picture: base64 of a PNG.
        small: whether it has so few pixels that they are shown as squares.
        confidence_a: of `said_a`; 0 to 1.
        confidence_b: of `said_b`.
    """

    number: int
    picture: str
    small: bool
    true: str
    said_a: str
    said_b: str
    confidence_a: float
    confidence_b: float


@dataclass(frozen=True)
class Gallery:
    """The flips that are shown; `reason` says why there are none."""

    lost: tuple[Card, ...] = ()
    won: tuple[Card, ...] = ()
    reason: str = ""


def hang(
    a: Side,
    b: Side,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    here: Here,
    most: int,
) -> Gallery:
    """Show flips with their images.

    Args:
        a: of the test split.
        b: of the same.
        rows: of the test split: right -> wrong, wrong -> right.
        here: where the images may be.
        most: of each kind that are shown.
    """
    if reason := _why_not(a, b, here):
        return Gallery(reason=reason)
    images = Splits(here.path).x("test")
    lost, won = (
        tuple(_card(int(row), images[row], a.predictions, b.predictions) for row in some[:most])
        for some in rows
    )
    return Gallery(lost, won)


def _why_not(a: Side, b: Side, here: Here) -> str:
    """Say why the images cannot be shown; nothing where they can."""
    if here.info is None:
        return f"{here.path} is not in this folder; dvc repro preprocess makes it"
    ours = test_md5(here.info)
    if ours not in (here.test_md5_of(a), here.test_md5_of(b)):
        return f"{here.path} has another test split than the models; check out the data they had"
    stored = dvc_md5(here.path / "x_test.npy")
    same = np.array_equal(Splits(here.path).y("test"), a.predictions.y)
    if stored != here.info.md5.get("x_test.npy") or not same:
        return f"the files in {here.path} are not those that its metadata.json names; dvc checkout"
    return ""


def _card(row: int, image: NDArray[np.uint8], a: Predictions, b: Predictions) -> Card:
    sure_a, sure_b = a.probabilities[row], b.probabilities[row]
    return Card(
        number=row,
        picture=_png(image),
        small=max(image.shape[:2]) <= MOST_PIXELS // 2,
        true=a.class_names[a.y[row]],
        said_a=a.class_names[sure_a.argmax()],
        said_b=b.class_names[sure_b.argmax()],
        confidence_a=float(sure_a.max()),
        confidence_b=float(sure_b.max()),
    )


def _png(image: NDArray[np.uint8]) -> str:
    channels = image[..., 0] if image.shape[2] == 1 else image
    picture, buffer = Image.fromarray(channels), io.BytesIO()
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
