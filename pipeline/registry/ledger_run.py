"""Where a model's ledger is stored: in an MLflow run, as parameters, which MLflow never changes.

Of two processes that write the same number, the store takes one and refuses the other: on any store
one of two promotions at once wins, without a lock that a killed process could leave behind.
"""

import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import mlflow
import numpy as np
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.artifacts.datasets import Contents
from pipeline.artifacts.files import read_array, write_array
from pipeline.errors import TrackingError
from pipeline.registry.ledger import Entry, Question
from pipeline.tracking.runs import find_or_create_experiment
from pipeline.tracking.store import connect, reaching

# One experiment for all ledgers, one run per registered model; no dataset can have this name.
EXPERIMENT = "production ledger"
# The tag of the registered model that names the run.
RUN_TAG = "ledger_run_id"
DONE = "done"
# The parameters `question.<candidate>.<incumbent>.<digest>`, and the folder of the images.
QUESTION = "question"


class Conflict(TrackingError):
    """Another process wrote this entry first."""


class LedgerRun:
    """The ledger of one registered model."""

    def __init__(self, name: str, client: MlflowClient, run_id: str) -> None:
        self.name, self.run_id, self._client = name, run_id, client

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries in their order.

        Raises:
            TrackingError: the run is deleted, or an entry cannot be read.
        """
        params = self._params()
        numbers = sorted(key for key in params if key.isdigit())
        try:
            return tuple(Entry.model_validate_json(params[key]) for key in numbers)
        except ValueError as error:
            raise TrackingError(f"the ledger of {self.name} cannot be read: {error}") from error

    def append(self, entry: Entry) -> None:
        """Write an entry, or fail and write nothing.

        Raises:
            Conflict: another entry has its number.
            TrackingError: the store cannot be reached.
        """
        key, text = f"{entry.sequence:06}", entry.model_dump_json()
        try:
            with reaching("write the ledger"):
                self._client.log_param(self.run_id, key, text)
        except TrackingError:
            # Refused, or the answer was lost after it was written: the ledger shows which.
            first = next((e for e in self.entries() if e.sequence == entry.sequence), None)
            if first is None:
                raise
            if first.key != entry.key:
                raise Conflict(
                    f"another process wrote this entry first: entry {first.sequence} of the ledger "
                    f"of {self.name} is {first.action} {first.version} by {first.asked_by} at "
                    f"{first.when}; see `pipeline history {self.name}` and try again",
                    retryable=True,
                ) from None
        self._show(entry)

    def is_done(self, sequence: int) -> bool:
        """Return whether the aliases were moved as an entry says."""
        return f"{sequence:06}.{DONE}" in self._params()

    def mark_done(self, sequence: int) -> None:
        """Write down that the aliases were moved as an entry says."""
        with reaching("write the ledger"):
            self._client.log_param(self.run_id, f"{sequence:06}.{DONE}", "yes")

    def keep_decision(self, decision: Any) -> str:
        """Store a decision as an artifact, and return the id that an entry names it by."""
        key = uuid4().hex
        with reaching("store the decision"):
            self._client.log_dict(self.run_id, decision, f"decisions/{key}.json")
        return key

    def decision(self, entry: Entry) -> dict[str, Any] | None:
        """Return the decision of an entry; None where none was taken."""
        if not entry.decision:
            return None
        with reaching(f"read the decision of entry {entry.sequence}"):
            uri = f"runs:/{self.run_id}/decisions/{entry.decision}.json"
            content: dict[str, Any] = json.loads(mlflow.artifacts.load_text(uri))
        return content

    def questions(self) -> tuple[Question, ...]:
        """Return which versions were compared on which images, each question once."""
        rows = [key.split(".") for key in self._params() if key.startswith(f"{QUESTION}.")]
        return tuple(Question(int(new), int(old), images) for _, new, old, images in rows)

    def record_question(self, question: Question, images: Contents, new: bool) -> None:
        """Write down a question; it may be there already.

        Args:
            question: names its images by their digest.
            images: the set of images, which is stored where it is new.
            new: whether it is.
        """
        with reaching("write the ledger"):
            if new:
                with TemporaryDirectory() as folder:
                    file = Path(folder) / f"{question.images}.npy"
                    write_array(file, images)
                    self._client.log_artifact(self.run_id, str(file), QUESTION)
            key = ".".join([QUESTION, *map(str, question)])
            self._client.log_param(self.run_id, key, "asked")

    def images_of(self, digest: str) -> Contents:
        """Return a set of images that was asked about."""
        with reaching("read the ledger"), TemporaryDirectory() as folder:
            uri = f"runs:/{self.run_id}/{QUESTION}/{digest}.npy"
            file = mlflow.artifacts.download_artifacts(uri, dst_path=folder)
            return np.array(read_array(Path(file)))

    def _show(self, entry: Entry) -> None:
        """Show an entry where people look: as a file of the run, and on the version's page."""
        # The entry itself is written, so this may fail.
        with contextlib.suppress(TrackingError), reaching("show the ledger"):
            rows = [row.model_dump(mode="json") for row in self.entries()]
            self._client.log_dict(self.run_id, {"model": self.name, "entries": rows}, "ledger.json")
            if entry.version is not None:
                text = f"{entry.action} at {entry.when} by {entry.asked_by}: {entry.reason}"
                number = str(entry.version)
                self._client.set_model_version_tag(self.name, number, "last_decision", text)

    def _params(self) -> dict[str, str]:
        with reaching(f"read the ledger of {self.name}"):
            run: MlflowRun = self._client.get_run(self.run_id)
        if run.info.lifecycle_stage != "active":
            raise TrackingError(
                f"the ledger of {self.name}, run {self.run_id}, was deleted; restore it: "
                f"mlflow runs restore --run-id {self.run_id}"
            )
        return dict(run.data.params)


def ledger_of(name: str) -> LedgerRun:
    """Return the ledger of a registered model; it is created where there is none.

    Raises:
        TrackingError: there is no such model, or the store cannot be reached.
    """
    client = connect()
    with reaching(f"find the ledger of {name}"):
        tags = client.get_registered_model(name).tags
        if RUN_TAG not in tags:
            # Registered by an earlier release, or not by this pipeline.
            client.set_registered_model_tag(name, RUN_TAG, _new_run(client, name))
            tags = client.get_registered_model(name).tags
    return LedgerRun(name, client, tags[RUN_TAG])


def create_registered_model(client: MlflowClient, name: str) -> None:
    """Create a registered model with its ledger, unless another process has just done so."""
    run_id = _new_run(client, name)
    try:
        client.create_registered_model(name, tags={RUN_TAG: run_id})
    except MlflowException:
        client.get_registered_model(name)
        client.delete_run(run_id)


def _new_run(client: MlflowClient, name: str) -> str:
    experiment_id = find_or_create_experiment(client, EXPERIMENT)
    run = client.create_run(experiment_id, run_name=name, tags={"model": name})
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
