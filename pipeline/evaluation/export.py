"""A Keras model, exported as a LiteRT file that must make the same predictions."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import atomic
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord
from pipeline.evaluation.predictions import Probabilities

# How much a probability may differ from that of Keras: sums are computed in another order.
TOLERANCE = 1e-4


def export(
    model: keras.Model, trained: TrainedModel, images: Images, expected: Probabilities
) -> LiteRTModel:
    """Write the LiteRT file of a model and its record, if its predictions are those of the model.

    Labels are then the same, except where two classes are practically tied.

    Args:
        model: loaded from `trained.model`.
        trained: `model.tflite` and `portable.json` are added to it.
        images: `uint8`, to compare the predictions on.
        expected: the probabilities that the model gives them.

    Raises:
        ArtifactError: LiteRT lacks a layer, or the predictions differ.
    """
    with atomic(trained.litert) as part:
        content = _convert(model, part, trained.model)
        litert = LiteRTModel(content)
        difference = float(np.abs(litert.probabilities(images) - expected).max())
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{trained.model} and its LiteRT file predict differently: the probabilities of "
                f"{len(images)} test images differ by up to {difference:.2g}, allowed: "
                f"{TOLERANCE:g}; train a recipe without the layers that LiteRT computes differently"
            )
    LiteRTRecord(
        sha256=hashlib.sha256(content).hexdigest(),
        model_sha256=trained.run.model_sha256,
        images=len(images),
        difference=difference,
    ).save(trained.litert_record)
    return litert


def _convert(model: keras.Model, path: Path, source: Path) -> bytes:
    """Export a model to LiteRT, using only LiteRT's own operations, and return the bytes."""
    try:
        with quiet_stderr():
            model.export(
                path,
                format="litert",
                verbose=False,
                # Keras would allow TensorFlow's operations, which need TensorFlow at run time, and
                # variables, which are slower than constants.
                target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
                experimental_enable_resource_variables=False,
            )
    except Exception as error:  # the converter's own classes are not public
        raise ArtifactError(
            f"{source} cannot be exported to LiteRT: {' '.join(str(error).split())[:500]}; "
            "LiteRT does not support all layers: train a recipe without that one"
        ) from error
    return path.read_bytes()
