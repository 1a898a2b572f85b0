"""The model as MLflow serves it: image bytes or `uint8` arrays in, labels and probabilities out.

MLflow stores this file and the package beside the model and runs them where the model is loaded,
so that no copy of this repository is needed there.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd

from pipeline.artifacts import RunInfo
from pipeline.errors import ImageError
from pipeline.images import decode


class ImageClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A table with a column `image`: base64 of an image file, or pixels of the model's shape."""

    def load_context(self, context: Any) -> None:
        """Load the model, once per process."""
        self.info = RunInfo.load(Path(context.artifacts["run"]))
        self.model = keras.saving.load_model(
            context.artifacts["model"], compile=False, safe_mode=True
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return `label`, `class_name` and `probabilities` for each row of column `image`.

        Raises:
            ImageError: a row is neither an image nor pixels; the message gives its number.
        """
        rows = model_input["image"]
        images = np.stack([self._pixels(value, number) for number, value in enumerate(rows)])
        probabilities = self.model.predict(images, batch_size=256, verbose=0)
        labels = probabilities.argmax(axis=1)
        return pd.DataFrame(
            {
                "label": labels,
                "class_name": [self.info.class_names[label] for label in labels],
                "probabilities": [row.astype(float).tolist() for row in probabilities],
            }
        )

    def _pixels(self, value: Any, number: int) -> Any:
        try:
            return as_pixels(value, self.info.image_shape)
        except ImageError as error:
            raise ImageError(f"image {number}: {error}") from error


def as_pixels(value: Any, image_shape: tuple[int, int, int]) -> Any:
    """Return one image as `uint8` (height, width, channels).

    Args:
        value: bytes of an image file or their base64, of any size and mode; or pixels 0 to 255
            of exactly this shape, the channel of a gray image left out or not.
        image_shape: what the model takes.

    Raises:
        ImageError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ImageError(f"the text is not base64: {error}") from error
    if isinstance(value, bytes):
        return decode(value, image_shape)
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
