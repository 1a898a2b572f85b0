"""Load a trained model that is what its run says, and ask it for probabilities."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import sha256 as file_sha256
from pipeline.errors import ArtifactError
from pipeline.evaluation.latency import Latency, latency
from pipeline.evaluation.predictions import Probabilities

# Pixels per forward pass: enough to keep all cores busy, few enough to stay small.
PIXELS_PER_BATCH = 2**19
# GPUs would round what they multiply to three digits; scores are held against those of others.
tf.config.experimental.enable_tensor_float_32_execution(False)


def load_checked(path: Path, sha256: str) -> keras.Model:
    """Load a model for inference, after its bytes were checked and not before.

    Args:
        path: `model.keras`.
        sha256: of the file that was trained.

    Raises:
        ArtifactError: the file is missing, is another one, or does not load.
    """
    try:
        found = file_sha256(path)
        if found != sha256:
            raise ArtifactError(f"{path} has sha256 {found}; that of the trained model is {sha256}")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"cannot load {path}: {' '.join(str(error).split())}") from error


class Scorer:
    """A model, compiled once for batches of any size."""

    def __init__(self, model: keras.Model) -> None:
        shape = model.input_shape[1:]
        self.batch_size = max(1, PIXELS_PER_BATCH // int(np.prod(shape)))
        self._forward = tf.function(
            lambda images: model(images, training=False),
            input_signature=[tf.TensorSpec((None, *shape), tf.uint8)],
        )
        self._shape = shape

    def probabilities(self, images: Images) -> Probabilities:
        """Return the probabilities of `uint8` images: (n, num_classes)."""
        size = self.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self._forward(np.asarray(batch)).numpy() for batch in batches])

    def latency(self) -> Latency:
        """Measure how long it takes to answer."""
        return latency(
            lambda images: self._forward(images).numpy(), self._shape, min(self.batch_size, 512)
        )
