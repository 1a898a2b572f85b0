"""Which test images two models are compared on: those of both that neither has seen."""

from dataclasses import dataclass

import numpy as np

from pipeline.artifacts.datasets import Contents
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Predictions
from pipeline.production.comparable import differing_classes
from pipeline.registry.version_images import VersionImages
from pipeline.reports.comparing.flips import LocalData, Rows
from pipeline.reports.comparing.sides import Side

NO_PAIRS = "no paired test, no flips."


@dataclass(frozen=True)
class Pairs:
    """The same test images in the predictions of both models.

    Attributes:
        rows_a: (n,) their rows in the test split of A.
        rows_b: (n,) in that of B.
        note: which images are left out, or why that is not known.
    """

    rows_a: Rows
    rows_b: Rows
    note: str

    def predictions(self, a: Side, b: Side) -> tuple[Predictions, Predictions]:
        """Return the predictions of both for these images."""
        return a.predictions.of(self.rows_a), b.predictions.of(self.rows_b)


def pair(a: Side, b: Side, local: LocalData) -> Pairs | str:
    """Find the images on which two models are compared, or say why there are none.

    Raises:
        ArtifactError: they should have the same test split, but their labels differ.
    """
    classes_a, classes_b = a.predictions.class_names, b.predictions.class_names
    if classes_a != classes_b:
        text = differing_classes(classes_a, classes_b) or "they are in another order"
        return f"They have different classes ({text}): {NO_PAIRS}"
    images_a, images_b = local.images_of(a), local.images_of(b)
    if images_a is not None and images_b is not None:
        return _of_records(a, b, images_a, images_b)
    if reason := _why_not_the_same(a, b, local):
        return reason
    _check_labels(a, b)
    recorded = {"A": images_a, "B": images_b}
    unknown = " and ".join(letter for letter, images in recorded.items() if images is None)
    rows = np.arange(len(a.predictions.y))
    return Pairs(rows, rows, f"Not recorded is which images {unknown} has seen.")


def _of_records(a: Side, b: Side, seen_a: VersionImages, seen_b: VersionImages) -> Pairs | str:
    """Pair the images of two models that have records of them."""
    contents, rows_a, rows_b = _same_images(seen_a.test_rows, seen_b.test_rows)
    if not len(contents):
        return f"They were evaluated on different test splits: {NO_PAIRS}"
    if a.data_md5 == b.data_md5:
        _check_labels(a, b)
    relabelled = a.predictions.y[rows_a] != b.predictions.y[rows_b]
    by_a, by_b = seen_a.has_seen(contents), seen_b.has_seen(contents)
    seen = by_a | by_b
    if not (kept := ~(seen | relabelled)).any():
        return f"No test image is left that neither has seen: {NO_PAIRS}"
    alone = len(seen_a.test_rows) + len(seen_b.test_rows) - 2 * len(contents)
    left_out = (
        (seen.sum(), f"seen in training or validation (A {by_a.sum():,}, B {by_b.sum():,})"),
        ((relabelled & ~seen).sum(), "of another label"),
        (alone, "of only one test split"),
    )
    texts = [f"{count:,} {what}" for count, what in left_out if count]
    return Pairs(rows_a[kept], rows_b[kept], f"Left out: {', '.join(texts)}." if texts else "")


def _same_images(a: Contents, b: Contents) -> tuple[Contents, Rows, Rows]:
    """Return the images of two test splits, and their rows in both."""
    if np.array_equal(a, b):
        rows = np.arange(len(a))
        return a, rows, rows
    return np.intersect1d(a, b, return_indices=True)


def _check_labels(a: Side, b: Side) -> None:
    if a.predictions.y.tolist() != b.predictions.y.tolist():
        raise ArtifactError(
            f"{a.spec} and {b.spec} should have the same test split, but the labels of their "
            "evaluations differ; evaluate both again: dvc repro --force evaluate"
        )


def _why_not_the_same(a: Side, b: Side, local: LocalData) -> str:
    """Return why two test splits are not known to be the same; empty where they are."""
    if a.data_md5 == b.data_md5:
        return ""
    tests = local.test_md5_of(a), local.test_md5_of(b)
    if None in tests:
        return (
            "They were made from different data, and only registered versions record which images "
            f"these are: {NO_PAIRS}"
        )
    if tests[0] != tests[1]:
        return f"They were evaluated on different test splits: {NO_PAIRS}"
    return ""
