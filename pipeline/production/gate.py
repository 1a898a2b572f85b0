"""The gate: ask a version and the one in production about the test split, now, and decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.measures import calibration_error
from pipeline.evaluation.portable import load_portable
from pipeline.evaluation.predictions import Predictions, Probabilities
from pipeline.evaluation.quiet import quiet_stderr
from pipeline.images import as_base64_png
from pipeline.production import promotion
from pipeline.production.decision import Decision
from pipeline.production.promotion import Candidate, Incumbent, Scored
from pipeline.production.rules import Rules
from pipeline.registry import versions as registry
from pipeline.registry.passport import Example, Passport, test_md5
from pipeline.registry.versions import Registered
from pipeline.tracking.store import reaching

# Enough to notice a model that is not the one that was evaluated.
IMAGES_TO_REPRODUCE = 512


def examine(version: Registered, incumbent: int | None, splits: Splits, rules: Rules) -> Decision:
    """Decide whether a version may go into production.

    Args:
        version: that asks to.
        incumbent: the version in production, if any.
        splits: only `test` is read.
        rules: from params.yaml.

    Raises:
        ArtifactError: the version has no passport, its files are not what was registered, or it
            takes other images than the test split has.
        TrackingError: the store cannot be reached, or the version does not load.
    """
    passport = registry.read_passport(version)
    candidate = _candidate(version, passport, splits)
    old = None
    if incumbent is not None:
        old = _incumbent(registry.find(f"{version.name}/{incumbent}"), splits)
    return promotion.decide(candidate, old, rules, test_md5(splits.info))


def _candidate(version: Registered, passport: Passport, splits: Splits) -> Candidate:
    probabilities = _ask(registry.fetch(version), splits)
    scored = _scored(version, passport, splits, probabilities)
    code, checks = passport.provenance.code, passport.validation
    return Candidate(
        **vars(scored),
        calibration_error=calibration_error(
            Predictions(splits.info.class_names, splits.y("test"), probabilities)
        ),
        latency_p95_ms=passport.metrics["latency_p95_ms"],
        size_mb=passport.metrics["size_bytes"] / 1e6,
        missing=passport.missing(),
        apart=apart(
            f"models:/{version.name}/{version.version}", splits, probabilities, passport.examples
        ),
        validated=checks.passed and checks.raw_md5 == passport.data.raw_md5,
        dirty=code.dirty is not False,
    )


def _incumbent(version: Registered, splits: Splits) -> Incumbent:
    try:
        has_passport = "passport_sha256" in version.tags
        passport = registry.read_passport(version) if has_passport else None
        probabilities = _ask(registry.fetch(version), splits)
    except (ArtifactError, TrackingError) as error:
        if error.retryable:
            raise
        return Incumbent(version.version, reason=str(error))
    return Incumbent(version.version, _scored(version, passport, splits, probabilities))


def _ask(folder: Path, splits: Splits) -> Probabilities:
    """Ask the model of a folder about all test images.

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
    if not trained.portable.exists():
        return _ask_keras(trained, splits)
    if (found := sha256(trained.model)) != run.model_sha256:
        raise ArtifactError(
            f"{trained.model} has sha256 {found}; that of the trained model is {run.model_sha256}"
        )
    return load_portable(trained).probabilities(splits.x("test"))


def _ask_keras(trained: TrainedModel, splits: Splits) -> Probabilities:
    """Ask a version from before there were LiteRT files; TensorFlow is loaded for no other."""
    with quiet_stderr():
        from pipeline.evaluation.scoring import Scorer, load_checked
    model = load_checked(trained.model, trained.run.model_sha256)
    return Scorer(model).probabilities(splits.x("test"))


def _scored(
    version: Registered, passport: Passport | None, splits: Splits, probabilities: Probabilities
) -> Scored:
    y, names = np.asarray(splits.y("test")), splits.info.class_names
    right = probabilities.argmax(axis=1) == y
    return Scored(
        version=version.version,
        right=right,
        recalls={
            name: float(right[y == label].mean())
            for label, name in enumerate(names)
            if (y == label).any()
        },
        skill=passport.origin_of_skill if passport else None,
        test_md5=passport.test_md5 if passport else None,
    )


def apart(
    uri: str, splits: Splits, expected: Probabilities, examples: Sequence[Example] = ()
) -> float:
    """Return how far a model, loaded and asked as callers do, is from what is expected of it.

    Args:
        uri: of a logged or registered model.
        splits: the first images of `test` are asked about: as pixels all, as a file the first.
        expected: probabilities of the test split.
        examples: what Keras said of these when the model was evaluated is expected as well.

    Raises:
        TrackingError: it does not load or does not answer.
    """
    served: Any = registry.load(uri)
    images = splits.x("test")[:IMAGES_TO_REPRODUCE]
    asked = [as_base64_png(images[0]), *images, *(example.png for example in examples)]
    with reaching(f"ask {uri}"):
        answer = served.predict(pd.DataFrame({"image": asked}))
    said = np.stack(answer["probabilities"].to_list())
    wanted = [expected[0], *expected[: len(images)], *(row.probabilities for row in examples)]
    return float(np.abs(said - np.stack(wanted)).max())
