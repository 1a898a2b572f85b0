"""Load a trained model after checking its sha256, and compute probabilities with it."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import sha256 as file_sha256
from pipeline.errors import ArtifactError
from pipeline.evaluation.latency import Latency, latency
from pipeline.evaluation.predictions import Probabilities
from pipeline.models.litert import traced

# Pixels per forward pass: enough to keep all cores busy, few enough to save memory.
PIXELS_PER_BATCH = 2**19
# TF32 would round to three digits on GPUs; scores are compared with those of other machines.
tf.config.experimental.enable_tensor_float_32_execution(False)


def load_checked(path: Path, sha256: str) -> keras.Model:
    """Load a model for inference, once its sha256 has been checked.

    Args:
        path: `model.keras`.
        sha256: what `run.json` says it should be.

    Raises:
        ArtifactError: the file is missing, has another sha256, or does not load.
    """
    try:
        found = file_sha256(path)
        if found != sha256:
            raise ArtifactError(f"{path} has sha256 {found}; the trained model has {sha256}")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"cannot load {path}: {' '.join(str(error).split())}") from error


class Scorer:
    """A model, compiled once for batches of any size.

    Attributes:
        forward: the function that TensorFlow has traced.
    """

    def __init__(self, model: keras.Model) -> None:
        shape = model.input_shape[1:]
        self.batch_size = max(1, PIXELS_PER_BATCH // int(np.prod(shape)))
        self.forward = traced(model)
        self._shape = shape

    def probabilities(self, images: Images) -> Probabilities:
        """Return the probabilities of `uint8` images: (n, num_classes)."""
        size = self.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self.forward(np.asarray(batch)).numpy() for batch in batches])

    def latency(self) -> Latency:
        """Measure how long it takes to predict."""
        return latency(
            lambda images: self.forward(images).numpy(), self._shape, min(self.batch_size, 512)
        )
