"""A Keras model, exported as a LiteRT file that must make the same predictions."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import atomic
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord, predict_on_all_cores
from pipeline.evaluation.predictions import Probabilities
from pipeline.models.litert import to_litert, traced

# How much a probability may differ from that of Keras: sums are computed in another order.
TOLERANCE = 1e-4


def export(
    model: keras.Model,
    trained: TrainedModel,
    images: Images,
    expected: Probabilities,
    forward: Any = None,
) -> LiteRTModel:
    """Write the LiteRT file of a model and its record, if its predictions are those of the model.

    Labels are then the same, except where two classes are practically tied.

    Args:
        model: loaded from `trained.model`.
        trained: `model.tflite` and `portable.json` are added to it.
        images: `uint8`, to compare the predictions on.
        expected: the probabilities that the model gives them.
        forward: what `models.litert.traced` made of the model, where that was done.

    Raises:
        ArtifactError: LiteRT lacks a layer, or the predictions differ.
    """
    with atomic(trained.litert) as part:
        content = _convert(forward or traced(model), trained.model)
        part.write_bytes(content)
        found = predict_on_all_cores(content, images)
        difference = float(np.abs(found - expected).max())
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
    return LiteRTModel(content)


def _convert(forward: Any, source: Path) -> bytes:
    try:
        return to_litert(forward)
    except Exception as error:  # the converter's own classes are not public
        raise ArtifactError(
            f"{source} cannot be exported to LiteRT: {' '.join(str(error).split())[:500]}; "
            "LiteRT does not support all layers: train a recipe without that one"
        ) from error
