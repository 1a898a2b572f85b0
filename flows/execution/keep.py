"""Files of a flow run that are stored with its MLflow runs; MLflow is imported when needed."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from flows.execution.checkout import Checkout
from flows.pages.view import VALIDATION
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import TrackingError, ValidationFailed
from pipeline.tracking.describe import flow_run

# The folder among the artifacts of an MLflow run for what made its model.
LINEAGE = "lineage"


def with_runs(checkout: Checkout, validation: Path, run_ids: Sequence[str]) -> None:
    """Store params.yaml, dvc.lock and the validation report with each of the MLflow runs.

    Raises:
        TrackingError: the store cannot be reached.
    """
    if not run_ids:
        return
    from pipeline.tracking.runs import existing_run

    for run_id in run_ids:
        run = existing_run(run_id, "dvc repro --force")
        for name in (PARAMS_FILE, Path("dvc.lock")):
            if (checkout.root / name).exists():
                run.log_artifact(checkout.root / name, LINEAGE)
        if validation.exists():
            run.log_artifact(validation, VALIDATION)


def failed_validation(dataset: str, validation: Path, reason: str) -> tuple[str, str]:
    """Store the report with a new MLflow run, FAILED with the reason, as there is no training.

    Returns:
        The ids of its experiment and of the run.

    Raises:
        TrackingError: the store cannot be reached.
    """
    from pipeline.tracking.runs import new_run

    with suppress(ValidationFailed), new_run(dataset, "validate") as run:
        run.log_tags(flow_run())
        run.log_artifact(validation, VALIDATION)
        raise ValidationFailed(reason)
    return run.experiment_id, run.run_id


def end_left_runs(flow_run_ids: Iterable[str]) -> None:
    """Set MLflow runs that are RUNNING to KILLED where their flow run was killed."""
    ids = list(flow_run_ids)
    if not ids:
        return
    from pipeline.tracking.runs import end_runs_of

    with suppress(TrackingError):
        for flow_run_id in ids:
            end_runs_of(flow_run_id)
