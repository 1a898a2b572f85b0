"""A model that answers, or says that it does not know: what `predict` and the served model ask."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.files import read_json
from pipeline.artifacts.models import TrainedModel
from pipeline.evaluation.litert import LiteRTModel, load_litert
from pipeline.evaluation.predictions import Probabilities
from pipeline.guarantee.guarantee import Guarantee
from pipeline.guarantee.training_features import FILE_NAME, Features, TrainingFeatures

UNKNOWN = "unknown"
NOT_SURE, UNLIKE = "not sure", "unlike the training images"
# The most probable classes that are named where there is no answer.
NEAREST = 3


@dataclass(frozen=True)
class Answers:
    """What a model says of n images.

    Attributes:
        probabilities: (n, num_classes).
        reasons: (n,), why there is no answer; empty where there is one.
    """

    probabilities: Probabilities
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """When a model with a guarantee answers.

    Attributes:
        known: the training images that it compares with.
    """

    guarantee: Guarantee
    known: TrainingFeatures

    def reasons(self, probabilities: Probabilities, features: Features) -> NDArray[Any]:
        """Return for each image why there is no answer; empty where there is one: (n,)."""
        promise, distances = self.guarantee, self.known.distances(features)
        unlike = (distances.turned > promise.turned) | (distances.far > promise.far)
        sure = probabilities.max(axis=1) > promise.above
        return np.where(unlike, UNLIKE, np.where(sure, "", NOT_SURE))


@dataclass(frozen=True)
class SelectiveModel:
    """A LiteRT model that answers within its limits.

    Attributes:
        limits: None where the version has no guarantee: it answers always.
    """

    model: LiteRTModel
    limits: Limits | None

    def answer(self, images: Images) -> Answers:
        """Ask about `uint8` images."""
        if self.limits is None:
            probabilities = self.model.probabilities(images)
            return Answers(probabilities, ("",) * len(probabilities))
        probabilities, features = self.model.with_features(images)
        return Answers(probabilities, tuple(self.limits.reasons(probabilities, features).tolist()))


def load_selective(trained: TrainedModel) -> SelectiveModel:
    """Load the LiteRT file of a model, and the guarantee where its passport has one.

    Raises:
        ArtifactError: a file is missing, or not what was checked.
    """
    return SelectiveModel(load_litert(trained), _limits(trained))


def _limits(trained: TrainedModel) -> Limits | None:
    file = trained.path / "passport.json"
    # Read as JSON: the whole of a passport needs libraries that a served model has not.
    found = read_json(file).get("guarantee") if file.exists() else None
    if found is None:
        return None
    known = TrainingFeatures.load(trained.path / FILE_NAME)
    return Limits(Guarantee.model_validate(found), known)
