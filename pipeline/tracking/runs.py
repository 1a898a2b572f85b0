"""MLflow runs: one per trained model, from its first epoch to its evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from pipeline.errors import TrackingError
from pipeline.redaction import redact
from pipeline.tracking.run import Run
from pipeline.tracking.store import connect, database_file, reaching, store_uri

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

# Without it MLflow takes an experiment for one with language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# The tag of a run that stands for one of another store: that one's id.
ORIGINAL = "original_run_id"
# The tag with the reason why a run is not FINISHED.
FAILURE = "failure"


@contextmanager
def new_run(experiment: str, name: str) -> Iterator[Run]:
    """Start a run, and end it as FINISHED, FAILED with the reason, or KILLED.

    Raises:
        TrackingError: the store cannot be reached.
    """
    with ended(_create(experiment, name)) as run:
        yield run


@contextmanager
def ended(run: Run, goes_on: bool = False) -> Iterator[Run]:
    """End a run as FINISHED, FAILED with the reason, or KILLED; measure the machine meanwhile.

    Args:
        run: it is RUNNING.
        goes_on: whether it has such measurements already, from an interrupted training.

    Raises:
        TrackingError: the store cannot be reached.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run.run_id, resume_logging=goes_on)  # every ten seconds
    try:
        monitor.start()
        yield run
        run.flush()
    except BaseException as error:
        # Ctrl-C and SIGTERM raise BaseException, not Exception.
        killed = not isinstance(error, Exception)
        _end(run, monitor, "KILLED" if killed else "FAILED", error)
        raise
    _end(run, monitor, "FINISHED", None)


@contextmanager
def stand_in(experiment: str, name: str, original: str) -> Iterator[Run]:
    """Start a run that stands for one of another store; it is FINISHED once all is written.

    Args:
        experiment: that of the other run.
        name: that of the other run.
        original: the id of the other run; `find_run` finds this one by it.

    Raises:
        TrackingError: the store cannot be reached.
    """
    run = _create(experiment, name)
    try:
        yield run
        run.flush()
        note = f"Recorded again from its files: trained as run {original}."
        with reaching("end the run"):
            run.client.set_terminated(run.run_id, "FINISHED")
        run.log_tags({"mlflow.note.content": note, ORIGINAL: original})
    except BaseException:
        with suppress(Exception):
            run.client.delete_run(run.run_id)
        raise


def _create(experiment: str, name: str) -> Run:
    client = connect()
    with reaching("start a run"):
        experiment_id = find_or_create_experiment(client, experiment)
        tags = {"mlflow.user": mlflow.tracking.context.default_context._get_user()}
        entity = client.create_run(experiment_id, run_name=name, tags=tags)
    return Run(client, entity.info.run_id, experiment_id)


def find_or_create_experiment(client: MlflowClient, experiment: str) -> str:
    """Return the id of an experiment; it is created where there is none."""
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return _for_training(client, found)
    file = database_file(store_uri())
    # Beside the database, wherever the command runs; a server has a place of its own.
    place = (file.parent / "mlartifacts" / experiment).as_uri() if file else None
    try:
        return str(client.create_experiment(experiment, artifact_location=place, tags=KIND))
    except mlflow.exceptions.MlflowException:
        # Another process may have created it meanwhile.
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return str(found.experiment_id)


def _for_training(client: MlflowClient, experiment: Experiment) -> str:
    """Tag an experiment that was made by hand, or by an older release, as one for training."""
    for key, value in KIND.items():
        if key not in experiment.tags:
            # Its owner may have given us no right to change it; nothing depends on it.
            with suppress(mlflow.exceptions.MlflowException):
                client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def _end(
    run: Run, monitor: "SystemMetricsMonitor", status: str, error: BaseException | None
) -> None:
    """End a run; a store that has gone away must not hide why the training failed."""
    monitor.finish()
    # The monitor drops its last interval, which is all that a short training has. If the store is
    # gone, the calls below say so.
    with suppress(Exception):
        monitor.collect_metrics()
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()
    try:
        if error is not None:
            run.flush()
            reason = " ".join(str(error).split()) or type(error).__name__
            run.log_tags({FAILURE: redact(reason)[:5000]})
        with reaching("end the run"):
            run.client.set_terminated(run.run_id, status)
    except TrackingError:
        if error is None:
            raise


def existing_run(run_id: str, retrain: str) -> Run:
    """Return a run that exists already.

    Args:
        run_id: its id.
        retrain: the command that trains the model again, for the error.

    Raises:
        TrackingError: this store does not have it, or cannot be reached.
    """
    found = find_run(run_id)
    if found is None:
        raise TrackingError(
            f"the MLflow store {store_uri()} has no run {run_id}, which trained this model; point "
            f"MLFLOW_TRACKING_URI at the store that has it, or train again: {retrain}"
        )
    return found


def find_run(run_id: str) -> Run | None:
    """Return a run, or the one that stands for it; None where the store has neither.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = connect()
    with reaching(f"find run {run_id}"):
        try:
            found = client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            everywhere = [row.experiment_id for row in client.search_experiments()]
            rows = client.search_runs(everywhere, f"tags.{ORIGINAL} = '{run_id}'", max_results=1)
            if not rows:
                return None
            found = rows[0]
    return Run(client, found.info.run_id, found.info.experiment_id)


def end_runs_of(flow_run_id: str) -> None:
    """End as KILLED the runs that a flow run which died has left RUNNING.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = connect()
    with reaching("end the runs of a killed flow run"):
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        query = f"tags.flow_run_id = '{flow_run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(everywhere, query):
            client.set_terminated(run.info.run_id, "KILLED")
