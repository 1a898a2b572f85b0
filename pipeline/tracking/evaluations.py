"""The files and metrics of an evaluation on an MLflow run: written, and read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from pipeline.artifacts.models import Evaluation, RunInfo
from pipeline.errors import TrackingError
from pipeline.tracking.run import Run
from pipeline.tracking.store import connect, reaching, store_uri

EVALUATION, HISTORY, PROVENANCE = "evaluation", "history.csv", "provenance.json"
# The figures are not read back.
NEEDED = (
    f"{EVALUATION}/metrics.json",
    f"{EVALUATION}/confusion.csv",
    f"{EVALUATION}/predictions/probabilities.npy",
    f"{EVALUATION}/predictions/confusion_counts.csv",
    HISTORY,
)


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated.

    Attributes:
        folder: holds `evaluation/`, `history.csv` and, unless the run is older than that file,
            `provenance.json`.
    """

    run_id: str
    experiment_id: str
    tags: Mapping[str, str]
    folder: Path


def log(run: Run, evaluation: Evaluation, litert_record: Path) -> None:
    """Put an evaluation on the run that trained the model, its metrics as `test_…`.

    Raises:
        TrackingError: the store cannot be reached.
    """
    # What `run.json` has as well, the training has logged.
    rows = {
        key: value
        for key, value in evaluation.metrics.items()
        if isinstance(value, int | float) and key not in RunInfo.model_fields
    }
    for name, row in evaluation.classes.items():
        # MLflow restricts metric names; class names may hold anything.
        clean = "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in name)
        rows |= {f"{key} {clean}": value for key, value in row.items()}
    run.log_metrics({f"test_{key}": value for key, value in rows.items()})
    run.flush()
    run.log_artifact(evaluation.path, EVALUATION)
    run.log_artifact(litert_record, EVALUATION)


def fetch(run_id: str, folder: Path) -> Evaluated:
    """Download what a run has of its training and evaluation into a folder.

    Args:
        run_id: the id of the run that trained a model.
        folder: an empty one.

    Raises:
        TrackingError: the store cannot be reached, has no such run, or lacks a file of it.
    """
    client = connect()
    try:
        run = client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        raise TrackingError(
            f"the MLflow store {store_uri()} has no run {run_id}; take the id from its page, or "
            "point MLFLOW_TRACKING_URI at the store that has it"
        ) from error
    with reaching(f"read the files of run {run_id}"):
        there = _listed(client, run_id)
        _check(run_id, run.info.status, there)
        for name in (*NEEDED, *({PROVENANCE} & there)):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # Where MLflow puts a file below the folder depends on the kind of store.
            Path(client.download_artifacts(run_id, name, str(target.parent))).replace(target)
    return Evaluated(run_id, str(run.info.experiment_id), dict(run.data.tags), folder)


def _listed(client: MlflowClient, run_id: str) -> set[str]:
    """Return which of the files that are needed here the run has."""
    folders = (None, EVALUATION, f"{EVALUATION}/predictions")
    found = {file.path for folder in folders for file in client.list_artifacts(run_id, folder)}
    return found & {*NEEDED, PROVENANCE}


def _check(run_id: str, status: str, there: set[str]) -> None:
    missing = [name for name in NEEDED if name not in there]
    if not any(name.startswith(EVALUATION) for name in there):
        raise TrackingError(
            f"run {run_id} ({status}) has no evaluation: it did not train a model, was not "
            "evaluated, or its files were deleted; evaluate the model: dvc repro"
        )
    if missing:
        raise TrackingError(
            f"run {run_id} lacks {', '.join(missing)}: deleted from the store, or made by an older "
            "version; evaluate the model again: dvc repro --force evaluate"
        )
