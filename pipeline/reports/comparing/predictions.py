"""What a model says of the test split, and how it was trained, as the stages write it."""

import csv
from pathlib import Path

import numpy as np

from pipeline.artifacts.models import Evaluation
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Predictions


def read_predictions(folder: Path) -> Predictions:
    """Read the predictions of an evaluation, classes in the order of the labels.

    Raises:
        ArtifactError: a file is missing, or they do not fit each other.
    """
    # classes.json is sorted by name: only this one has the order.
    names = tuple(row[0] for row in _rows(folder / "predictions" / "confusion_counts.csv")[1:])
    labels = {name: label for label, name in enumerate(names)}
    actual = [row[0] for row in _rows(folder / "confusion.csv")[1:]]
    probabilities = np.array(Evaluation(folder).probabilities)
    if probabilities.shape != (len(actual), len(names)) or not set(actual) <= set(labels):
        raise ArtifactError(
            f"{folder} holds probabilities {probabilities.shape} of {len(actual)} images and "
            f"{len(names)} classes, which do not fit; evaluate the model again"
        )
    return Predictions(names, np.array([labels[name] for name in actual]), probabilities)


def read_history(path: Path) -> dict[str, tuple[float, ...]]:
    """Read the columns of `history.csv`.

    Raises:
        ArtifactError: it is missing or torn.
    """
    head, *rows = _rows(path)
    try:
        return {
            name: tuple(map(float, column))
            for name, column in zip(head, zip(*rows, strict=True), strict=True)
        }
    except ValueError as error:
        raise ArtifactError(f"{path} is torn: {error}; train the model again") from error


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"cannot read {path}: {error}; make it anew: dvc repro") from error
    if not rows:
        raise ArtifactError(f"{path} is empty; make it anew: dvc repro --force")
    return rows
