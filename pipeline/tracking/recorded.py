"""The run that made a model, recorded again where the store lacks it.

A clone that has pulled the models of another one has their evaluations and all that is known about
their training, but a store of its own. MLflow gives the new run a new id: the id of the run that
trained the model stays in `run.json` and in the passport, and is a tag of the new run.
"""

import sys

import pandas as pd

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.errors import ArtifactError
from pipeline.tracking import evaluations, trainings
from pipeline.tracking.provenance import Provenance
from pipeline.tracking.run import Run
from pipeline.tracking.runs import find_run, stand_in
from pipeline.tracking.store import store_uri


def run_of(trained: TrainedModel, splits: Splits, evaluation: Evaluation | None = None) -> Run:
    """Return the run that trained a model; if the store lacks it, it is recorded from the files.

    Args:
        trained: the model.
        splits: the data that it was trained on.
        evaluation: its evaluation, if there is one already; it is recorded as well.

    Raises:
        ArtifactError: the data is not what it was trained on, or a file is missing or torn.
        TrackingError: the store cannot be reached.
    """
    info = trained.run
    found = find_run(info.run_id)
    if found is not None:
        return found
    check_data(trained, splits)
    with stand_in(info.experiment, info.model, info.run_id) as run:
        _record(run, trained, splits)
        if evaluation is not None:
            evaluations.log(run, evaluation, trained.litert_record)
    print(
        f"run {info.run_id}, which trained {info.model}, is not in {store_uri()}: recorded there "
        f"again as run {run.run_id}",
        file=sys.stderr,
    )
    return run


def check_data(trained: TrainedModel, splits: Splits) -> None:
    """Refuse data that a model was not trained on.

    Raises:
        ArtifactError: the data is another.
    """
    if splits.md5 != trained.run.data_md5:
        raise ArtifactError(
            f"{trained.path} was trained on other data than {splits.path} has: dvc checkout, or "
            f"train it again: dvc repro --force train@{trained.run.model}"
        )


def _record(run: Run, trained: TrainedModel, splits: Splits) -> None:
    """Write to a run what the training would have written."""
    info, provenance = trained.run, Provenance.load(trained.provenance)
    trainings.describe(run, splits, info.data_md5, info.dataset, info.model, provenance)
    for row in pd.read_csv(trained.history).to_dict("records"):
        epoch = int(row.pop("epoch"))
        run.log_metrics({str(name): float(value) for name, value in row.items()}, step=epoch)
    run.log_metrics(
        {
            "parameters": info.parameters,
            "epochs": info.epochs,
            "training_seconds": info.training_seconds,
            "best_val_accuracy": info.val_accuracy,
            "best_val_loss": info.val_loss,
            **info.calibration,
        }
    )
    run.flush()
    run.log_artifact(trained.history)
    run.log_artifact(trained.provenance)
    run.log_tags({"model_sha256": info.model_sha256})
