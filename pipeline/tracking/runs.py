"""MLflow runs: one per trained model, from its first epoch to its evaluation."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, Experiment, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from pipeline.artifacts.datasets import Splits
from pipeline.errors import TrackingError
from pipeline.redaction import redact
from pipeline.tracking.store import connect, database_file, impatient, reaching, store_uri

SECONDS_BETWEEN_FLUSHES = 3.0
# While the store is away, training goes on and asks for it less and less often.
LONGEST_PAUSE = 60.0
# MLflow refuses larger batches.
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
# Without it MLflow takes an experiment for one with language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# The tag of a run that stands for one of another store: which one.
ORIGINAL = "original_run_id"


class Run:
    """What is written to one run; metrics are held back for a few seconds and sent together."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._held: list[Metric] = []
        self._flushed = time.monotonic()
        self._pause = SECONDS_BETWEEN_FLUSHES

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, nested ones with dotted names."""
        rows = [Param(key, str(value)[:6000]) for key, value in flat(params).items()]
        with reaching("log parameters"):
            for start in range(0, len(rows), PARAMS_PER_REQUEST):
                chunk = rows[start : start + PARAMS_PER_REQUEST]
                self.client.log_batch(self.run_id, params=chunk)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags; None is left out."""
        rows = [RunTag(key, str(value)) for key, value in tags.items() if value is not None]
        with reaching("log tags"):
            self.client.log_batch(self.run_id, tags=rows)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Hold metrics of one step; they are sent once the last request is seconds ago.

        A store that is away does not stop the training: what is held is sent when it is back, at
        the latest by `flush`. The store drops a metric that it has already, so none is doubled.
        """
        now = int(time.time() * 1000)
        self._held += [Metric(key, float(value), now, step) for key, value in metrics.items()]
        if time.monotonic() - self._flushed > self._pause:
            self._flush_unless_away()

    def _flush_unless_away(self) -> None:
        try:
            with impatient():
                self.flush()
            self._pause = SECONDS_BETWEEN_FLUSHES
        except TrackingError as error:
            if not error.retryable:
                raise
            self._flushed = time.monotonic()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def flush(self) -> None:
        """Send all metrics that are held."""
        with reaching("log metrics"):
            while self._held:
                self.client.log_batch(self.run_id, metrics=self._held[:METRICS_PER_REQUEST])
                del self._held[:METRICS_PER_REQUEST]
        self._flushed = time.monotonic()

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or all that is in a folder."""
        with reaching(f"store {path.name}"):
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), folder)
            else:
                self.client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Store a text."""
        with reaching(f"store {name}"):
            self.client.log_text(self.run_id, text, name)

    def log_dataset(self, splits: Splits, digest: str) -> None:
        """Name the data under DVC's md5: MLflow's own digest covers a dozen images."""
        info = splits.info
        # MLflow wants an array for the schema; one image says it all.
        dataset = from_numpy(
            np.zeros((1, *info.image_shape), np.uint8), name=info.name, digest=digest
        )
        tag = InputTag("mlflow.data.context", "training")
        with reaching("log the dataset"):
            self.client.log_inputs(
                self.run_id, [DatasetInput(dataset._to_mlflow_entity(), tags=[tag])]
            )


@contextmanager
def new_run(experiment: str, name: str) -> Iterator[Run]:
    """Start a run and end it as it ended: FINISHED, FAILED with the reason, or KILLED.

    Raises:
        TrackingError: the store cannot be reached.
    """
    run = _create(experiment, name)
    monitor = SystemMetricsMonitor(run.run_id)  # every ten seconds
    try:
        monitor.start()
        yield run
        run.flush()
    except BaseException as error:
        # Whoever ends a process does it with something that is no ordinary exception.
        killed = not isinstance(error, Exception)
        _end(run, monitor, "KILLED" if killed else "FAILED", error)
        raise
    _end(run, monitor, "FINISHED", None)


@contextmanager
def stand_in(experiment: str, name: str, original: str) -> Iterator[Run]:
    """Start a run that is FINISHED and stands for one of another store once all is written to it.

    Args:
        experiment: as that of the other.
        name: as that of the other.
        original: the id of the other; `find_run` finds this one by it.

    Raises:
        TrackingError: the store cannot be reached.
    """
    run = _create(experiment, name)
    try:
        yield run
        run.flush()
        note = f"Recorded again from the files that it left: trained as run {original}."
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
    """Return the id of an experiment, which is created unless another process is just doing so."""
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return _for_training(client, found)
    file = database_file(store_uri())
    # Beside the database, wherever the command runs; a server has a place of its own.
    place = (file.parent / "mlartifacts" / experiment).as_uri() if file else None
    try:
        return str(client.create_experiment(experiment, artifact_location=place, tags=KIND))
    except mlflow.exceptions.MlflowException:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return str(found.experiment_id)


def _for_training(client: MlflowClient, experiment: Experiment) -> str:
    """Say what an experiment is for that somebody has made by hand, or with an older release."""
    for key, value in KIND.items():
        if key not in experiment.tags:
            # Whose it is may have left others no right to change it; nothing depends on it.
            with suppress(mlflow.exceptions.MlflowException):
                client.set_experiment_tag(experiment.experiment_id, key, value)
    return str(experiment.experiment_id)


def _end(run: Run, monitor: SystemMetricsMonitor, status: str, error: BaseException | None) -> None:
    """End a run; a store that has gone away must not hide why the training failed."""
    monitor.finish()
    # By itself it drops the last interval, which is all that a short training has. Where the store
    # is gone, what follows says so.
    with suppress(Exception):
        monitor.collect_metrics()
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()
    try:
        if error is not None:
            run.flush()
            reason = " ".join(str(error).split()) or type(error).__name__
            run.log_tags({"failure": redact(reason)[:5000]})
        with reaching("end the run"):
            run.client.set_terminated(run.run_id, status)
    except TrackingError:
        if error is None:
            raise


def existing_run(run_id: str, retrain: str) -> Run:
    """Return a run that was made before.

    Args:
        run_id: its id.
        retrain: the command that makes it anew.

    Raises:
        TrackingError: this store does not have it, or cannot be reached.
    """
    found = find_run(run_id)
    if found is None:
        raise TrackingError(
            f"the MLflow store {store_uri()} has no run {run_id}, which made this model; point "
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
    """Say KILLED on what a flow run that is no more has left RUNNING.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = connect()
    with reaching("end the runs of a killed flow run"):
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        query = f"tags.flow_run_id = '{flow_run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(everywhere, query):
            client.set_terminated(run.info.run_id, "KILLED")


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    out: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
