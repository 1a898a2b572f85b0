"""The gate: score a version and the one in production, now, on images that neither has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.litert import load_litert
from pipeline.evaluation.metric import ImageMetric, SplitMetric
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.predictions import Predictions, Probabilities
from pipeline.evaluation.quiet import quiet_stderr
from pipeline.images import as_base64_png
from pipeline.production.decision import Candidate, Case, Decision, Incumbent, Scored, decide
from pipeline.production.floors import check_floors
from pipeline.production.rules import Thresholds
from pipeline.production.scored_images import seen_by, unseen
from pipeline.registry import model_files, versions
from pipeline.registry.passport import Example, Passport, test_md5
from pipeline.registry.versions import Registered
from pipeline.tracking.store import reaching

# Enough to notice a model that is not the one that was evaluated.
IMAGES_TO_REPRODUCE = 512


def examine(
    version: Registered, incumbent: int | None, splits: Splits, thresholds: Thresholds
) -> Decision:
    """Decide whether a version may go into production.

    Args:
        version: the candidate.
        incumbent: the version in production, if any.
        splits: only `test` is read.
        thresholds: from params.yaml.

    Raises:
        ArtifactError: the version has no passport, its files are not what was registered, or it
            takes other images than the test split has.
        ParamsError: a floor is set for a metric that has none.
        TrackingError: the store cannot be reached, or the version does not load.
    """
    check_floors(thresholds)
    passport = model_files.read_passport(version)
    new, old, reason = _ask(version, passport, splits), None, ""
    if incumbent is not None:
        try:
            old = _ask_incumbent(versions.find(f"{version.name}/{incumbent}"), splits)
        except (ArtifactError, TrackingError) as error:
            if error.retryable:
                raise
            reason = str(error)
    info = splits.info
    left, images = unseen(splits.y("test"), info.class_names, new.seen, old.seen if old else None)
    if old is not None and not left.any():
        reason = "no test image is left that neither version has seen"
    return decide(
        Case(
            _candidate(new, passport, left, splits),
            _incumbent(incumbent, old, left, reason),
            test_md5(info),
            images,
        ),
        thresholds,
    )


@dataclass(frozen=True)
class _Asked:
    """A version that was asked about all test images.

    Attributes:
        passport: None where it was registered without.
        seen: (n,) which of the images it was trained or validated on; None where it has no record.
    """

    version: Registered
    passport: Passport | None
    predictions: Predictions
    seen: NDArray[np.bool_] | None


def _ask(version: Registered, passport: Passport | None, splits: Splits) -> _Asked:
    """Ask a version about all test images.

    Raises:
        ArtifactError: its files are not what was registered, or it takes other images.
        TrackingError: the store cannot be reached.
    """
    return _Asked(
        version,
        passport,
        _predictions(model_files.fetch(version), splits),
        seen_by(model_files.read_images(version), splits.contents("test")),
    )


def _ask_incumbent(version: Registered, splits: Splits) -> _Asked:
    has_passport = "passport_sha256" in version.tags
    return _ask(version, model_files.read_passport(version) if has_passport else None, splits)


def _incumbent(
    number: int | None, old: _Asked | None, left: NDArray[np.bool_], reason: str
) -> Incumbent | None:
    if number is None:
        return None
    return Incumbent(number, _scored(old, left) if old and not reason else None, reason)


def _candidate(
    new: _Asked, passport: Passport, left: NDArray[np.bool_], splits: Splits
) -> Candidate:
    version, code, checks = new.version, passport.provenance.code, passport.validation
    return Candidate(
        **vars(_scored(new, left)),
        metrics=_metrics_with_floors(passport, new.predictions.of(left)) if left.any() else {},
        missing=passport.missing(),
        max_difference=max_difference(
            f"models:/{version.name}/{version.version}",
            splits,
            new.predictions.probabilities,
            passport.examples,
        ),
        validated=checks.passed and checks.raw_md5 == passport.data.raw_md5,
        dirty=code.dirty is not False,
    )


def _predictions(folder: Path, splits: Splits) -> Predictions:
    """Return what the model of a folder predicts for the test split.

    Raises:
        ArtifactError: it takes other images, knows other classes, or is not what was trained.
    """
    trained, info = TrainedModel(folder), splits.info
    run = trained.run
    if (run.image_shape, run.class_names) != (info.image_shape, info.class_names):
        raise ArtifactError(
            f"it takes images {run.image_shape} of {len(run.class_names)} classes; {splits.path} "
            f"has {info.image_shape} of {len(info.class_names)}, or classes of other names"
        )
    ask = _ask_litert if trained.litert.exists() else _ask_keras
    return Predictions(info.class_names, splits.y("test"), ask(trained, splits))


def _ask_litert(trained: TrainedModel, splits: Splits) -> Probabilities:
    if (found := sha256(trained.model)) != trained.run.model_sha256:
        raise ArtifactError(
            f"{trained.model} has sha256 {found}; that of the trained model is "
            f"{trained.run.model_sha256}"
        )
    return load_litert(trained).probabilities(splits.x("test"))


def _ask_keras(trained: TrainedModel, splits: Splits) -> Probabilities:
    """Ask a version from before there were LiteRT files; no other needs TensorFlow."""
    with quiet_stderr():
        from pipeline.evaluation.scoring import Scorer, load_checked
    model = load_checked(trained.model, trained.run.model_sha256)
    return Scorer(model).probabilities(splits.x("test"))


def _scored(asked: _Asked, left: NDArray[np.bool_]) -> Scored:
    predictions, passport = asked.predictions.of(left), asked.passport
    return Scored(
        version=asked.version.version,
        right=predictions.right,
        recalls=predictions.recalls(),
        ingredients=passport.ingredients_digest if passport else None,
        test_md5=passport.test_md5 if passport else None,
    )


def _metrics_with_floors(passport: Passport, predictions: Predictions) -> dict[str, float]:
    """Return the metrics that have a floor: computed now, or as they were when evaluated."""
    found = {}
    for metric in METRICS:
        if metric.floor is None:
            continue
        if isinstance(metric, ImageMetric | SplitMetric):
            found[metric.floor.key] = metric.score(predictions) / metric.floor.units
        elif metric.name in passport.metrics:
            found[metric.floor.key] = passport.metrics[metric.name] / metric.floor.units
    return found


def max_difference(
    uri: str, splits: Splits, expected: Probabilities, examples: Sequence[Example] = ()
) -> float:
    """Return how far a model's probabilities, asked as callers ask it, are from those expected.

    Args:
        uri: the URI of a logged or registered model.
        splits: the first images of `test` are asked about: as pixels all, as a file the first.
        expected: probabilities of the test split.
        examples: what Keras answered for these when the model was evaluated is expected as well.

    Raises:
        TrackingError: it does not load or does not answer.
    """
    served: Any = model_files.load(uri)
    images = splits.x("test")[:IMAGES_TO_REPRODUCE]
    asked = [as_base64_png(images[0]), *images, *(example.png for example in examples)]
    with reaching(f"ask {uri}"):
        answer = served.predict(pd.DataFrame({"image": asked}))
    found = np.stack(answer["probabilities"].to_list())
    wanted = [expected[0], *expected[: len(images)], *(row.probabilities for row in examples)]
    return float(np.abs(found - np.stack(wanted)).max())
