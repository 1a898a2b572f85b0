"""One of the models that are compared: what it is, what it predicts, what made it."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Predictions
from pipeline.registry import model_files, versions
from pipeline.registry.spec import parse_spec
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import Registered
from pipeline.reports.comparing.changes import Origin, from_run
from pipeline.tracking import evaluations
from pipeline.tracking.provenance import Provenance
from pipeline.workspace import Workspace

RUN_ID = re.compile(r"[0-9a-f]{32}")
OTHERS = "an MLflow run id, or a folder models/<dataset>/<model>"


@dataclass(frozen=True)
class Side:
    """One of two models.

    Attributes:
        spec: how it was named: `<name>/<version>`, a run id or a folder.
        model: the name of its recipe.
        aliases: that point at it; empty where it is not registered.
        metrics: the numbers of its `metrics.json`.
        history: the columns of `history.csv`.
        data_md5: DVC's md5 of the processed data.
        test_md5: the md5 of the test split; None where it has no passport.
        images: those that it was trained, validated and tested on; None where it has no record.
        forgotten: how many images it was made with that are to be forgotten since.
    """

    spec: str
    run_id: str
    experiment_id: str | None
    dataset: str
    model: str
    aliases: tuple[str, ...]
    predictions: Predictions
    metrics: Mapping[str, float]
    history: Mapping[str, tuple[float, ...]]
    origin: Origin
    data_md5: str
    test_md5: str | None
    images: VersionImages | None = None
    forgotten: int = 0

    @property
    def slug(self) -> str:
        """A short name for use in a file name."""
        if RUN_ID.fullmatch(self.spec):
            return self.spec[:8]
        # Of a folder, the dataset and the model.
        words = re.sub(r"[^\w.-]+", "-", "-".join(self.spec.split("/")[-2:]))
        return words.strip("-.") or self.run_id[:8]


def load(spec: str) -> Side:
    """Find a model and read its evaluation and what made it.

    Args:
        spec: `<name>@<alias>`, `<name>/<version>`, an MLflow run id, or the path of a
            `models/<dataset>/<model>`.

    Raises:
        ParamsError: it is none of these forms.
        TrackingError: the store cannot be reached, or lacks the model or its evaluation.
        ArtifactError: a file is missing or damaged.
    """
    path = Path(spec)
    path = path.parent if path.suffix == ".keras" else path
    if (path / "run.json").exists():
        return _from_folder(path)
    if RUN_ID.fullmatch(spec):
        return _from_run(spec, spec, None)
    if path.is_dir() or spec.count("/") > 1:
        raise ArtifactError(f"{spec} holds no trained model (no run.json); train one: dvc repro")
    version = versions.find(str(parse_spec(spec, OTHERS)))
    return _from_run(version.spec, version.run_id, version)


def _from_run(spec: str, run_id: str, version: Registered | None) -> Side:
    """Read the files of a run, and the passport of a registered version."""
    if not run_id:
        raise ArtifactError(f"{spec} was registered without a run, so nothing is known about it")
    has_passport = version is not None and "passport_sha256" in version.tags
    passport = model_files.read_passport(version) if version and has_passport else None
    with TemporaryDirectory() as folder:
        found = evaluations.fetch(run_id, Path(folder))
        file = found.folder / evaluations.PROVENANCE
        provenance = Provenance.load(file) if file.exists() else None
        return Side(
            spec=spec,
            run_id=run_id,
            experiment_id=found.experiment_id,
            dataset=found.tags.get("dataset", version.name if version else "unknown"),
            model=found.tags.get("model", "unknown"),
            aliases=version.aliases if version else (),
            predictions=_read_predictions(found.folder / evaluations.EVALUATION),
            metrics=_numbers(Evaluation(found.folder / evaluations.EVALUATION)),
            history=_read_history(found.folder / evaluations.HISTORY),
            origin=from_run(found.tags, provenance, passport),
            data_md5=found.tags.get("data_md5", "unknown"),
            test_md5=passport.test_md5 if passport else None,
            images=model_files.read_images(version) if version else None,
            forgotten=version.forgotten if version else 0,
        )


def _from_folder(path: Path) -> Side:
    """Read the files of a `models/<dataset>/<model>` and its evaluation beside it."""
    trained = TrainedModel(path)
    run = trained.run
    root = path.absolute().parents[2]
    evaluation = Workspace(run.dataset, root).evaluation(run.model)
    if evaluation.metrics["run_id"] != run.run_id:
        raise ArtifactError(
            f"{evaluation.path} is of run {evaluation.metrics['run_id']}, {path} of {run.run_id}; "
            f"evaluate it again: dvc repro evaluate@{run.model}"
        )
    tags = {"data_md5": run.data_md5, "device": run.device}
    return Side(
        spec=path.as_posix(),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        dataset=run.dataset,
        model=run.model,
        aliases=(),
        predictions=_read_predictions(evaluation.path),
        metrics=_numbers(evaluation),
        history=_read_history(trained.history),
        origin=from_run(tags, Provenance.load(trained.provenance), None),
        data_md5=run.data_md5,
        test_md5=None,
    )


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    return {k: float(v) for k, v in evaluation.metrics.items() if isinstance(v, int | float)}


def _read_predictions(folder: Path) -> Predictions:
    """Read the predictions of an evaluation, classes in the order of the labels.

    Raises:
        ArtifactError: a file is missing, or the files do not fit together.
    """
    # classes.json is sorted by name; this file has the order of the labels.
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


def _read_history(path: Path) -> dict[str, tuple[float, ...]]:
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
        raise ArtifactError(f"cannot read {path}: {error}; make it again: dvc repro") from error
    if not rows:
        raise ArtifactError(f"{path} is empty; make it again: dvc repro --force")
    return rows
