"""What flows between the stages: a path each, with load and save."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.errors import ArtifactError
from pipeline.files import read_array, read_json, write_array, write_json
from pipeline.params import ImageFolder
from pipeline.recipes import Frozen, Recipe

Images = NDArray[np.uint8]  # (n, height, width, channels)
Labels = NDArray[np.int64]  # (n,), each the index of a class name
Split = Literal["train", "val", "test"]


class Record(Frozen):
    """A typed JSON file."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the record.

        Raises:
            ArtifactError: it is missing, torn, or not of this form.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise ArtifactError(f"{path} is not a {cls.__name__}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the record."""
        write_json(path, self.model_dump(mode="json"))


class DatasetPlan(Record):
    """`plan/<dataset>/dataset.json`: which dataset, and its entry where params.yaml has one."""

    name: str
    entry: ImageFolder | None


class ModelPlan(Record):
    """`plan/<dataset>/models/<model>.json`: the recipe with defaults and seed filled in."""

    dataset: str
    model: str
    recipe: Recipe


class DatasetInfo(Record):
    """What is known of a dataset besides its pixels.

    Attributes:
        image_shape: height, width, channels.
        counts: images per split.
        expected: counts that the known dataset must have; None for own images.
        origin: for each file it was made from: where it came from and the sha256 of its content.
        intended_use: empty where nobody has stated it.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    counts: dict[str, int]
    expected: dict[str, int] | None = None
    origin: tuple[dict[str, str], ...] = ()
    licence: str = "not stated"
    intended_use: str = ""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


class SplitsInfo(DatasetInfo):
    """The same of the data that is trained on.

    Attributes:
        md5: of each array file.
        raw_md5: DVC's md5 of the raw dataset it was made from.
        warnings: names of the checks that warned.
    """

    md5: dict[str, str]
    raw_md5: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Arrays:
    """A folder of `x_<split>.npy` and `y_<split>.npy` with its `metadata.json`."""

    path: Path

    def x(self, split: Split) -> Images:
        """Memory-map the images of a split: `uint8`, (n, height, width, channels)."""
        return read_array(self.path / f"x_{split}.npy")

    def y(self, split: Split) -> Labels:
        """Memory-map the labels of a split: `int64`, (n,)."""
        return read_array(self.path / f"y_{split}.npy")

    def save_split(self, split: Split, x: Images, y: Labels) -> None:
        """Write both arrays of a split."""
        write_array(self.path / f"x_{split}.npy", x)
        write_array(self.path / f"y_{split}.npy", y.astype(np.int64))


class RawDataset(Arrays):
    """`data/raw/<dataset>/`: the images as they came, all of one shape, with `files.parquet`.

    `files.parquet` has one row per image, those of `train` first, each split in the order of its
    arrays: `split`, `file`, `height`, `width`, `mode` (Pillow's) and `error`, which is empty
    unless the image could not be decoded; its pixels are then zero.
    """

    @property
    def info(self) -> DatasetInfo:
        """Its metadata, written last: a folder without it is not a dataset."""
        return DatasetInfo.load(self.path / "metadata.json")

    @property
    def files(self) -> Path:
        """The path of `files.parquet`."""
        return self.path / "files.parquet"


class Splits(Arrays):
    """`data/processed/<dataset>/`: train, val and test, ready to be trained on."""

    @property
    def info(self) -> SplitsInfo:
        """Its metadata, written last."""
        return SplitsInfo.load(self.path / "metadata.json")


class CheckResult(Frozen):
    """One check of one dataset: what it saw, the limit it broke or kept, and who is to blame."""

    check: str
    severity: Literal["error", "warning"]
    passed: bool
    observed: float
    limit: float
    message: str
    files: tuple[str, ...] = ()


class ValidationReport(Record):
    """`reports/<dataset>/validation/summary.json`, without times: equal data, equal file."""

    dataset: str
    raw_md5: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check of severity `error` failed."""
        return not self.failures("error")

    def failures(self, severity: Literal["error", "warning"]) -> tuple[CheckResult, ...]:
        """The failed checks of one severity."""
        return tuple(r for r in self.results if r.severity == severity and not r.passed)


class RunInfo(Record):
    """`run.json`: the MLflow run that made a model, and what a reader asks first."""

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


@dataclass(frozen=True)
class TrainedModel:
    """`models/<dataset>/<model>/`: `model.keras`, `history.csv`, `run.json`, `provenance.json`.

    The evaluation adds `model.tflite` and `portable.json`.
    """

    path: Path

    @property
    def model(self) -> Path:
        """The Keras model: takes `uint8` images, returns probabilities."""
        return self.path / "model.keras"

    @property
    def portable(self) -> Path:
        """The same model as a LiteRT file, which needs no TensorFlow."""
        return self.path / "model.tflite"

    @property
    def portable_record(self) -> Path:
        """Which model the LiteRT file is, and how it was checked; `pipeline.portable` reads it."""
        return self.path / "portable.json"

    @property
    def history(self) -> Path:
        """One row per epoch: loss, accuracy, val_loss, val_accuracy, learning_rate, seconds."""
        return self.path / "history.csv"

    @property
    def provenance(self) -> Path:
        """What code, libraries and hardware trained it; `pipeline.passport` reads it."""
        return self.path / "provenance.json"

    @property
    def run(self) -> RunInfo:
        """The run that made it."""
        return RunInfo.load(self.path / "run.json")


@dataclass(frozen=True)
class Evaluation:
    """`reports/<dataset>/evaluation/<model>/`: metrics, predictions and pictures."""

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
    def probabilities(self) -> NDArray[np.float32]:
        """What the model says of each test image: (n, num_classes)."""
        return read_array(self.path / "predictions" / "probabilities.npy")


class ModelVersion(Record):
    """`reports/<dataset>/registered.json`: the version in the registry and who points at it.

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
