"""Trained models, their evaluations, and the version that was registered."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.artifacts.files import read_array, read_json
from pipeline.artifacts.record import Fit, Frozen, Record


class RunInfo(Record):
    """`run.json`: the MLflow run that made a model, and its main figures.

    Attributes:
        val_loss: of the finished model; with `calibrate` the cross-entropy on the validation
            split, otherwise the loss of the recipe in the epoch that was kept.
        calibration: the temperature by which the inputs of the softmax were divided, and metrics
            of the validation split before and after that; empty where none was fitted.
        resumed: how often the training was interrupted and went on from a checkpoint.
    """

    run_id: str
    experiment: str
    dataset: str
    model: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    data_md5: str
    model_sha256: str
    seed: int
    device: str
    parameters: int
    epochs: int
    training_seconds: float
    val_accuracy: float
    val_loss: float
    git_commit: str | None
    git_dirty: bool | None
    experiment_id: str | None = None
    fit: Fit = "stretch"
    calibration: dict[str, float] = Field(default_factory=dict)
    resumed: int = 0


@dataclass(frozen=True)
class TrainedModel:
    """`models/<dataset>/<model>/`: `model.keras`, `history.csv`, `run.json`, `provenance.json`.

    The evaluation adds the LiteRT file and its record. They keep the names `model.tflite` and
    `portable.json`: so dvc.yaml, MLflow and the versions registered so far have them.
    """

    path: Path

    @property
    def model(self) -> Path:
        """The Keras model: takes `uint8` images, returns probabilities."""
        return self.path / "model.keras"

    @property
    def litert(self) -> Path:
        """The same model as a LiteRT file, which needs no TensorFlow."""
        return self.path / "model.tflite"

    @property
    def litert_record(self) -> Path:
        """Which model the LiteRT file is, and how it was checked: see `evaluation.litert`."""
        return self.path / "portable.json"

    @property
    def history(self) -> Path:
        """One row per epoch: loss, accuracy, val_loss, val_accuracy, learning_rate, seconds."""
        return self.path / "history.csv"

    @property
    def provenance(self) -> Path:
        """What code, libraries and hardware trained it; a `Provenance` of `tracking`."""
        return self.path / "provenance.json"

    @property
    def run(self) -> RunInfo:
        """The run that made it."""
        return RunInfo.load(self.path / "run.json")


class Slice(Frozen):
    """The accuracy on the test images that share something, with the 95% interval of it alone.

    Attributes:
        attribute: what they share a value of.
        images: how many there are.
    """

    attribute: str
    value: str
    images: int
    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.attribute}: {self.value}"


@dataclass(frozen=True)
class Evaluation:
    """`reports/<dataset>/evaluation/<model>/`: metrics, predictions and figures."""

    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        metrics: dict[str, Any] = read_json(self.path / "metrics.json")
        return metrics

    @property
    def classes(self) -> dict[str, dict[str, float]]:
        """Precision, recall, f1 and support by class name: `predictions/classes.json`."""
        classes: dict[str, dict[str, float]] = read_json(self.path / "predictions" / "classes.json")
        return classes

    @property
    def slices_file(self) -> Path:
        """The path of what `slices` reads."""
        return self.path / "predictions" / "slices.csv"

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The accuracy on each slice of the test split, the worst first."""
        if not self.slices_file.exists():  # as in evaluations of earlier releases
            return ()
        with self.slices_file.open(newline="") as rows:
            return tuple(Slice.model_validate(row) for row in csv.DictReader(rows))

    @property
    def corruptions_file(self) -> Path:
        """A row for each corruption and severity: images, accuracy, and its interval."""
        return self.path / "predictions" / "corruptions.csv"

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The model's answer for each test image: (n, num_classes)."""
        return read_array(self.path / "predictions" / "probabilities.npy")


class ModelVersion(Record):
    """`reports/<dataset>/registered.json`: the registered version and its aliases.

    Attributes:
        shortfalls: why it is not in production, as sentences.
    """

    name: str
    version: int
    model: str
    run_id: str
    aliases: tuple[str, ...]
    val_accuracy: float
    test_accuracy: float
    model_sha256: str
    shortfalls: tuple[str, ...] = ()
