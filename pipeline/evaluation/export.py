"""A Keras model written as a LiteRT file, which must answer as the Keras model does."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import atomic
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord
from pipeline.evaluation.predictions import Probabilities
from pipeline.evaluation.quiet import quiet_stderr

# How far a probability may be from Keras': sums are added up in another order.
TOLERANCE = 1e-4


def export(
    model: keras.Model, trained: TrainedModel, images: Images, expected: Probabilities
) -> LiteRTModel:
    """Write the LiteRT file of a model and its record, once it has answered as the model does.

    Labels are then the same, except where two classes are as good as tied.

    Args:
        model: loaded from `trained.model`.
        trained: gets `model.tflite` and `portable.json`.
        images: `uint8`, to ask about.
        expected: what the model says of them.

    Raises:
        ArtifactError: a layer has no form in LiteRT, or the answers differ.
    """
    with atomic(trained.litert) as part:
        content = _convert(model, part, trained.model)
        litert = LiteRTModel(content)
        difference = float(np.abs(litert.probabilities(images) - expected).max())
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{trained.model} as a LiteRT file does not answer as it does: the probabilities "
                f"of {len(images)} test images differ by up to {difference:.2g}, allowed: "
                f"{TOLERANCE:g}; train a recipe without the layers that LiteRT computes otherwise"
            )
    LiteRTRecord(
        sha256=hashlib.sha256(content).hexdigest(),
        model_sha256=trained.run.model_sha256,
        images=len(images),
        difference=difference,
    ).save(trained.litert_record)
    return litert


def _convert(model: keras.Model, path: Path, source: Path) -> bytes:
    """Write a model as LiteRT, of LiteRT's own operations alone, and return the bytes."""
    try:
        with quiet_stderr():
            model.export(
                path,
                format="litert",
                verbose=False,
                # Keras would allow TensorFlow's operations, which need TensorFlow to run, and
                # variables, which are slower than constants.
                target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
                experimental_enable_resource_variables=False,
            )
    except Exception as error:  # the converter's own classes are not public
        raise ArtifactError(
            f"{source} cannot be written as a LiteRT file: {' '.join(str(error).split())[:500]}; "
            "a model may hold only what LiteRT knows: train a recipe without that layer"
        ) from error
    return path.read_bytes()
