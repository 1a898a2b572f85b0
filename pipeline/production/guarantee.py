"""guarantee: a registered version -> one that answers only where it errs rarely enough."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import atomic
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError, ParamsError
from pipeline.evaluation.litert import LiteRTModel, LiteRTRecord, read_checked
from pipeline.evaluation.predictions import Predictions
from pipeline.guarantee import training_features
from pipeline.guarantee.calibrate import threshold, upper_quantile
from pipeline.guarantee.features import with_features
from pipeline.guarantee.guarantee import Guarantee
from pipeline.guarantee.selective import UNLIKE, Limits
from pipeline.guarantee.training_features import TrainingFeatures, images_to_keep
from pipeline.production.asking import IMAGES_TO_REPRODUCE
from pipeline.production.comparable import differing_images
from pipeline.registry import model_files, versions
from pipeline.registry.derive import derive
from pipeline.registry.passport import Passport
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import CHALLENGER, GUARANTEE, PRODUCTION, Registered

# Of images like those it was calibrated on, how many are called unlike the training images: half
# by each of two distances.
UNLIKE_SHARE = 0.01
# Of the LiteRT file that gives its features too, to the one that was registered.
_TOLERANCE = 1e-6
# The new version, its passport, and what it says of the calibration images.
Publish = Callable[[Registered, Passport, Predictions], None]


@dataclass(frozen=True)
class Calibrated:
    """What was found on the calibration images.

    Attributes:
        limits: when the model answers.
        litert: the LiteRT file that gives its features too.
        predictions: what it says of the calibration images.
    """

    limits: Limits
    litert: bytes
    predictions: Predictions

    @property
    def guarantee(self) -> Guarantee:
        """What is promised."""
        return self.limits.guarantee


def default_version(name: str) -> Registered:
    """Return the version in production, or the challenger where nothing is.

    Raises:
        TrackingError: there is no such model, or it has neither.
    """
    versions.check_name(name)
    alias = PRODUCTION if PRODUCTION in versions.alias_holders(name) else CHALLENGER
    return versions.find(f"{name}@{alias}")


def calibrate(version: Registered, splits: Splits, error: float, confidence: float) -> Calibrated:
    """Find when a version may answer, on the test images that it has not seen.

    Neither training nor the choice of the epoch has used them. They decide on the threshold alone,
    so what was measured on them stays as it is.

    Args:
        version: the version.
        splits: its `train` and `test` are read; of `train` the images that it was trained on.
        error: the share of images on which it may err.
        confidence: the probability that this holds.

    Raises:
        ArtifactError: the images here are not those that the version takes, or was trained on.
        ParamsError: there are too few images, or it can answer none.
        TrackingError: the store cannot be reached.
    """
    trained = TrainedModel(model_files.fetch(version))
    info = splits.info
    text = differing_images(trained.run, info)
    if not text and trained.run.class_names != info.class_names:
        text = "other classes, or in another order"
    if text:
        raise ArtifactError(f"{version.spec} cannot be calibrated on {splits.path}: {text}")
    images = model_files.read_images(version)
    if images is None:
        raise ArtifactError(
            f"{version.spec} has no record of the images that it was trained on, as it was "
            "registered by an earlier release; train and register it again: dvc repro --force"
        )
    content = read_checked(trained)
    litert = with_features(content)
    model = LiteRTModel(litert)
    known = _training_features(version, model, splits, images)
    rows = np.flatnonzero(~images.has_seen(splits.contents("test")))
    y = np.array(splits.y("test"))[rows]
    if not len(rows):
        threshold(np.empty(0), np.empty(0, np.bool_), error, confidence)  # raises
    probabilities, features = model.with_features(splits.x("test"))
    some = splits.x("test")[:IMAGES_TO_REPRODUCE]
    before = LiteRTModel(content).probabilities(some)
    apart = float(np.abs(before - probabilities[: len(before)]).max())
    if not apart <= _TOLERANCE:
        raise ArtifactError(
            f"the LiteRT file of {version.spec} answers differently where it gives its features "
            f"too: probabilities differ by {apart:.2g}, allowed: {_TOLERANCE:g}"
        )
    probabilities, features = probabilities[rows], features[rows]
    predictions = Predictions(info.class_names, y, probabilities)
    distances = known.distances(features)
    promise = Guarantee(
        error=error,
        confidence=confidence,
        above=threshold(predictions.confidence, predictions.right, error, confidence),
        turned=upper_quantile(distances.turned, UNLIKE_SHARE / 2),
        far=upper_quantile(distances.far, UNLIKE_SHARE / 2),
        images=len(rows),
        answered=0,
        wrong=0,
        unlike=0,
        training_images=len(known.directions),
    )
    reasons = Limits(promise, known).reasons(probabilities, features)
    answered = reasons == ""
    if not answered.any():
        raise ParamsError(
            f"{version.spec} would answer no image: it is wrong on too many of the "
            f"{len(rows):,} calibration images, however sure it is; allow more errors than "
            f"--error {error:g}, or train a better model"
        )
    counts = {
        "answered": int(answered.sum()),
        "wrong": int((answered & ~predictions.right).sum()),
        "unlike": int((reasons == UNLIKE).sum()),
    }
    return Calibrated(Limits(promise.model_copy(update=counts), known), litert, predictions)


def _training_features(
    version: Registered, model: LiteRTModel, splits: Splits, images: VersionImages
) -> TrainingFeatures:
    """Return the features of some of the images that a version was trained on."""
    there = np.flatnonzero(np.isin(splits.contents("train"), images.train))
    if not len(there):
        raise ArtifactError(
            f"{splits.path} has none of the images that {version.spec} was trained on; bring them "
            "back, say with dvc pull or dvc checkout, or train again: dvc repro"
        )
    x = splits.x("train")
    _, first = model.with_features(np.asarray(x[there[:1]]))
    count = min(len(there), images_to_keep(first.shape[1]))
    # Any of them: drawn, as the split may be in an order.
    chosen = np.sort(np.random.default_rng(0).choice(there, count, replace=False))
    return TrainingFeatures.of(model.with_features(np.asarray(x[chosen]))[1])


def guarantee(version: Registered, found: Calibrated, *, publish: Publish) -> Registered:
    """Register the version that answers within its limits; it becomes the challenger.

    Args:
        version: what was calibrated.
        found: the result.
        publish: shows the guarantee in MLflow; `reports.guarantee` has it.

    Raises:
        TrackingError: the store cannot be reached.
    """
    stored = TrainedModel(model_files.fetch(version))
    with TemporaryDirectory() as folder:
        made = TrainedModel(Path(folder))
        features = made.path / training_features.FILE_NAME
        found.limits.known.save(features)
        with atomic(made.litert) as part:
            part.write_bytes(found.litert)
        record = LiteRTRecord.load(stored.litert_record)
        of_this = {"sha256": hashlib.sha256(found.litert).hexdigest()}
        record.model_copy(update=of_this).save(made.litert_record)
        files = (made.litert, made.litert_record, features)
        derived = derive(
            version,
            "pipeline guarantee",
            {file.name: file for file in files},
            {"guarantee": found.guarantee},
        )
    versions.set_tag(derived.name, derived.version, GUARANTEE, found.guarantee.sentence)
    publish(derived, model_files.read_passport(derived), found.predictions)
    versions.set_alias(derived.name, CHALLENGER, derived.version)
    return versions.find(derived.spec)
