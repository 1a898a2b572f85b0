"""The model as MLflow serves it: image bytes or `uint8` arrays in, labels and probabilities out.

MLflow stores this file and the package with the model and runs them where the model is loaded, so
no copy of this repository is needed there. The LiteRT file predicts, without TensorFlow.
"""

import base64
import binascii
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.record import Fit
from pipeline.errors import ArtifactError, ImageError
from pipeline.guarantee.selective import NEAREST, UNKNOWN, load_selective
from pipeline.images import decode


class ImageClassifier(PythonModel):  # type: ignore[misc]
    """A table with a column `image`: base64 of an image file, or pixels of the model's shape."""

    def load_context(self, context: Any) -> None:
        """Load the model, once per process, if it is what was trained.

        Raises:
            ArtifactError: the Keras file has another sha256 than the run says, or the LiteRT file
                is not the one that was made from it and checked.
        """
        trained = TrainedModel(Path(context.artifacts["model"]).parent)
        run = trained.run
        self.class_names, self.image_shape, self.fit = run.class_names, run.image_shape, run.fit
        found = sha256(trained.model)
        if found != run.model_sha256:
            raise ArtifactError(
                f"the model file has sha256 {found}; that of the trained model is "
                f"{run.model_sha256}: it is not served"
            )
        self.model = load_selective(trained)
        # A server predicts in many threads, and the interpreter can work in one at a time.
        self.turn = threading.Lock()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return `label`, `class_name` and `probabilities` for each row of column `image`.

        A version with a guarantee has two columns more: `nearest`, the most probable classes, and
        `reason`, why it does not answer, empty where it does. Its label is then -1 and the class
        name `unknown`.

        Raises:
            MlflowException: a row is neither an image nor pixels; the message gives its number.
        """
        images = [self._pixels(*numbered) for numbered in enumerate(rows(model_input["image"]))]
        if not images:
            raise MlflowException.invalid_parameter_value("no image; at least one is needed")
        with self.turn:
            answers = self.model.answer(np.stack(images))
        best, known = answers.probabilities.argmax(axis=1), np.array(answers.reasons) == ""
        table = {
            "label": np.where(known, best, -1),
            "class_name": [
                self.class_names[label] if there else UNKNOWN
                for label, there in zip(best, known, strict=True)
            ],
            "probabilities": [row.astype(float).tolist() for row in answers.probabilities],
        }
        if self.model.limits is not None:
            order = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :NEAREST]
            table["nearest"] = [[self.class_names[label] for label in row] for row in order]
            table["reason"] = list(answers.reasons)
        return pd.DataFrame(table)

    def _pixels(self, number: int, value: Any) -> Any:
        try:
            return as_pixels(value, self.image_shape, self.fit)
        except ImageError as error:
            # For any other exception a server shows the stack trace instead of the reason.
            raise MlflowException.invalid_parameter_value(f"image {number}: {error}") from error


def rows(column: Iterable[Any]) -> Iterator[Any]:
    """Yield the images of a column; MLflow packs `{"image": [text, text]}` into one row."""
    for value in column:
        several = isinstance(value, list) and any(isinstance(item, str) for item in value)
        yield from value if several else [value]


def as_pixels(value: Any, image_shape: tuple[int, int, int], fit: Fit = "stretch") -> Any:
    """Return one image as `uint8` (height, width, channels).

    Args:
        value: bytes of an image file or their base64, of any size and mode; or pixels 0 to 255
            of exactly this shape, the channel of a gray image left out or not.
        image_shape: the shape that the model takes.
        fit: how an image file of another aspect ratio becomes that.

    Raises:
        ImageError: it is neither.
    """
    if isinstance(value, str):
        try:
            # Many tools break lines after 76 characters.
            value = base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError(f"the text is not base64: {error}") from error
    if isinstance(value, bytes):
        return decode(value, image_shape, fit)
    try:
        pixels = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError(f"neither base64 text nor pixels: {error}") from error
    if image_shape[2] == 1 and pixels.shape == image_shape[:2]:
        pixels = pixels[..., None]
    if pixels.shape != image_shape:
        raise ImageError(f"pixels of shape {pixels.shape}; the model takes {image_shape}")
    if not ((pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))).all():
        raise ImageError("pixels must be whole numbers from 0 to 255; do not scale them")
    return pixels.astype(np.uint8)


mlflow.models.set_model(ImageClassifier())
