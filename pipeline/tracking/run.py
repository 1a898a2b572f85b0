"""What is written to one MLflow run: parameters, tags, metrics, files."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tenacity import retry, retry_if_exception, stop_after_attempt

from pipeline.artifacts.datasets import Splits
from pipeline.errors import TrackingError
from pipeline.tracking.store import impatient, reaching

SECONDS_BETWEEN_FLUSHES = 3.0
# While the store is away, training goes on and asks for it less and less often.
LONGEST_PAUSE = 60.0
# MLflow refuses larger batches.
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100


@dataclass(frozen=True)
class Written:
    """What a run has: the names of its parameters, and its metrics with their steps."""

    params: frozenset[str] = frozenset()
    steps: frozenset[tuple[str, int]] = frozenset()


class Run:
    """One run; its metrics are held for a few seconds and sent together.

    Args:
        client: of the store that has it.
        run_id: its id.
        experiment_id: that of its experiment.
        written: what an interrupted training has written to it, and is not written again.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        experiment_id: str,
        written: Written | None = None,
    ) -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._written = written or Written()
        self._held: list[Metric] = []
        self._flushed = time.monotonic()
        self._pause = SECONDS_BETWEEN_FLUSHES

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, nested ones with dotted names."""
        rows = [
            Param(key, str(value)[:6000])
            for key, value in flat(params).items()
            if key not in self._written.params
        ]
        with reaching("log parameters"):
            for start in range(0, len(rows), PARAMS_PER_REQUEST):
                chunk = rows[start : start + PARAMS_PER_REQUEST]
                self.client.log_batch(self.run_id, params=chunk)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags; None is left out."""
        rows = [RunTag(key, str(value)) for key, value in tags.items() if value is not None]
        with reaching("log tags"):
            self.client.log_batch(self.run_id, tags=rows)

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, at: float | None = None
    ) -> None:
        """Hold metrics of one step; they are sent if the last request was some seconds ago.

        A store that is away does not stop the training: the metrics are sent when it is back, at
        the latest by `flush`. The store drops a metric that it has already, so none is doubled.

        Args:
            metrics: values by name.
            step: the epoch, or 0 for those of the whole training.
            at: seconds since 1970; None is now.
        """
        when = int((time.time() if at is None else at) * 1000)
        self._held += [
            Metric(key, float(value), when, step)
            for key, value in metrics.items()
            if (key, step) not in self._written.steps
        ]
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
        # MLflow reads the schema from an array; one image is enough.
        dataset = from_numpy(
            np.zeros((1, *info.image_shape), np.uint8), name=info.name, digest=digest
        )
        tag = InputTag("mlflow.data.context", "training")
        inputs = [DatasetInput(dataset._to_mlflow_entity(), tags=[tag])]
        with reaching("log the dataset"):
            _log_inputs(self.client, self.run_id, inputs)


def _is_logged_twice(error: BaseException) -> bool:
    return isinstance(error, MlflowException) and "INSERT INTO datasets" in str(error)


# Of two runs that log a new dataset at the same moment, MLflow fails one; then it finds the entry.
@retry(retry=retry_if_exception(_is_logged_twice), stop=stop_after_attempt(3), reraise=True)
def _log_inputs(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    client.log_inputs(run_id, inputs)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    out: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
