"""The gate: score a version and the one in production, now, on images that neither has seen."""

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels, Splits
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.metric import ImageMetric, SliceMetric, SplitMetric
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.robustness.slices import Slices, members, slices
from pipeline.production import questions
from pipeline.production.asking import Asked, OtherImages, ask, max_difference
from pipeline.production.comparable import differing_classes
from pipeline.production.decision import Candidate, Case, Decision, Incumbent, Scored, decide
from pipeline.production.floors import check_floors
from pipeline.production.rules import Thresholds
from pipeline.production.scored_images import unseen
from pipeline.registry import model_files, versions
from pipeline.registry.ledger_run import LedgerRun
from pipeline.registry.passport import Passport, test_md5
from pipeline.registry.versions import Registered


def examine(
    version: Registered,
    incumbent: int | None,
    splits: Splits,
    thresholds: Thresholds,
    ledger: LedgerRun,
) -> Decision:
    """Decide whether a version may go into production.

    Args:
        version: the candidate.
        incumbent: the version in production, if any.
        splits: only `test` is read.
        thresholds: from params.yaml.
        ledger: it stores which versions were compared on which images.

    Raises:
        ArtifactError: the version has no passport, its files are not what was registered, or it
            takes other images, or knows other classes, than the test split has.
        ParamsError: a floor is set for a metric that has none.
        TrackingError: the store cannot be reached, or the version does not load.
    """
    check_floors(thresholds)
    info, y = splits.info, np.array(splits.y("test"))
    passport = model_files.read_passport(version)
    try:
        new = ask(version, passport, splits)
    except OtherImages as error:
        raise ArtifactError(f"{version.spec} cannot be scored on {splits.path}: {error}") from None
    if new.class_names != info.class_names:
        text = differing_classes(new.class_names, info.class_names) or "in another order"
        raise ArtifactError(
            f"{version.spec} knows other classes than {splits.path} has: {text}; "
            "train and register it again: dvc repro"
        )
    old = None
    if incumbent is not None:
        old = _ask_incumbent(versions.find(f"{version.name}/{incumbent}"), splits, thresholds)
    seen = old.seen if isinstance(old, Asked) else None
    left, images = unseen(y, info.class_names, new.seen, seen)
    if isinstance(old, Asked):
        old = _score(old, y, left, info.class_names)
        if old.scored is not None:
            contents = splits.contents("test")[left]
            contents = contents if old.common is None else contents[old.common]
            times = questions.ask(ledger, version.version, old.version, contents)
            images = images.compare(None if old.common is None else len(contents), times)
    candidate = _candidate(new, passport, y, left, splits)
    return decide(Case(candidate, old, test_md5(info), images), thresholds)


def _ask_incumbent(
    version: Registered, splits: Splits, thresholds: Thresholds
) -> Asked | Incumbent:
    """Ask the version in production, or say why it cannot be scored."""
    info, number = splits.info, version.version
    try:
        has_passport = "passport_sha256" in version.tags
        passport = model_files.read_passport(version) if has_passport else None
        asked = ask(version, passport, splits)
    except (ArtifactError, TrackingError) as error:
        if error.retryable:
            raise
        return Incumbent(number, reason=str(error), differs=isinstance(error, OtherImages))
    text = differing_classes(asked.class_names, info.class_names)
    if not set(asked.class_names) & set(info.class_names):
        return Incumbent(number, reason=f"no class in common: {text}", differs=True)
    if text and thresholds.incomparable == "refuse":
        return Incumbent(number, reason=text, differs=True)
    return asked


def _score(
    old: Asked, y: Labels, left: NDArray[np.bool_], class_names: tuple[str, ...]
) -> Incumbent:
    """Score the version in production on the images that are left, of classes that it knows."""
    known = np.isin(class_names, old.class_names)[y]
    number, text = old.version.version, differing_classes(old.class_names, class_names)
    if not (rows := left & known).any():
        reason = "no test image is left that neither version has seen"
        return Incumbent(number, reason=f"{reason}; {text}" if text else reason)
    common = known[left] if text else None
    return Incumbent(number, _scored(old, y, rows, class_names), text, bool(text), common)


def _candidate(
    new: Asked, passport: Passport, y: Labels, left: NDArray[np.bool_], splits: Splits
) -> Candidate:
    version, code, checks = new.version, passport.provenance.code, passport.validation
    predictions = Predictions(new.class_names, y, new.probabilities).of(left)
    by_slice = slices(predictions.right, [each.of(left) for each in members(splits)])
    return Candidate(
        **vars(_scored(new, y, left, new.class_names)),
        metrics=_metrics_with_floors(passport, predictions, by_slice) if left.any() else {},
        worst_slice=str(by_slice.worst or ""),
        missing=passport.missing(),
        max_difference=max_difference(
            f"models:/{version.name}/{version.version}",
            splits,
            new.probabilities,
            passport.examples,
        ),
        validated=checks.passed and checks.raw_md5 == passport.data.raw_md5,
        dirty=code.dirty is not False,
        forgotten=version.forgotten,
        derived_from=passport.derived_from.version if passport.derived_from else None,
    )


def _scored(
    asked: Asked, y: Labels, rows: NDArray[np.bool_], class_names: tuple[str, ...]
) -> Scored:
    """Score a version on some test images; a class that is not here is never right."""
    labels = {name: label for label, name in enumerate(class_names)}
    here = np.array([labels.get(name, -1) for name in asked.class_names])
    right = here[asked.probabilities.argmax(axis=1)] == y
    recalls = {name: right[rows & (y == label)] for name, label in labels.items()}
    passport = asked.passport
    return Scored(
        version=asked.version.version,
        right=right[rows],
        recalls={name: float(hits.mean()) for name, hits in recalls.items() if len(hits)},
        ingredients=passport.ingredients_digest if passport else None,
        test_md5=passport.test_md5 if passport else None,
        model_sha256=passport.run.model_sha256 if passport else None,
        error=passport.guarantee.error if passport and passport.guarantee else None,
    )


def _metrics_with_floors(
    passport: Passport, predictions: Predictions, by_slice: Slices
) -> dict[str, float]:
    """Return the metrics that have a floor: computed now, or as they were when evaluated."""
    found = {}
    for metric in METRICS:
        if metric.floor is None:
            continue
        if isinstance(metric, ImageMetric | SplitMetric):
            found[metric.floor.key] = metric.score(predictions) / metric.floor.units
        elif isinstance(metric, SliceMetric):
            if (value := metric.score(by_slice)) is not None:
                found[metric.floor.key] = value / metric.floor.units
        elif metric.name in passport.metrics:
            found[metric.floor.key] = passport.metrics[metric.name] / metric.floor.units
    return found
