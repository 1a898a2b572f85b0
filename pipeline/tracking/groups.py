"""Runs that belong together: their parent, and what can be read of them while they train."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run as Entity
from mlflow.tracking import MlflowClient

from pipeline.tracking.store import connect, reaching

PARENT = "mlflow.parentRunId"
NEWEST_FIRST = ["attributes.start_time DESC"]


@dataclass(frozen=True)
class Parent:
    """A parent run; `flow_run_id` is the flow run that made it."""

    run_id: str
    flow_run_id: str | None


class Groups:
    """The store, for flows that start many runs."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            TrackingError: the store cannot be reached, here as in every method.
        """
        self.client: MlflowClient = connect()
        self._experiments: dict[str, str] = {}

    def adopt(self, parent_id: str, run_ids: Iterable[str]) -> dict[str, str]:
        """Put runs under a parent where they have none; return the experiment of each."""
        experiments = {}
        with reaching("group runs"):
            for run_id in dict.fromkeys(run_ids):
                run = self.client.get_run(run_id)
                experiments[run_id] = str(run.info.experiment_id)
                if PARENT not in run.data.tags:
                    self.client.set_tag(run_id, PARENT, parent_id)
        return experiments

    def parents(self, experiment: str, tag: str, value: str) -> list[Parent]:
        """Return the runs of an experiment that have a tag, newest first."""
        found = self._search(experiment, tag, value)
        return [Parent(run.info.run_id, run.data.tags.get("flow_run_id")) for run in found]

    def text(self, run_id: str, name: str) -> str | None:
        """Return a text artifact of a run; None where there is none."""
        with reaching(f"read {name}"), tempfile.TemporaryDirectory() as folder:
            if name not in {file.path for file in self.client.list_artifacts(run_id)}:
                return None
            return Path(self.client.download_artifacts(run_id, name, folder)).read_text()

    def run_of(self, experiment: str, flow_run_id: str) -> str | None:
        """Return the newest run of a flow run; None where none has begun."""
        found = self._search(experiment, "flow_run_id", flow_run_id)
        return str(found[0].info.run_id) if found else None

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Return a metric by step."""
        with reaching(f"read {metric}"):
            return {row.step: row.value for row in self.client.get_metric_history(run_id, metric)}

    def _search(self, experiment: str, tag: str, value: str) -> list[Entity]:
        with reaching("search runs"):
            if experiment not in self._experiments:
                found = self.client.get_experiment_by_name(experiment)
                if found is None:
                    return []
                self._experiments[experiment] = found.experiment_id
            quoted = value.replace("'", "''")
            return list(
                self.client.search_runs(
                    [self._experiments[experiment]],
                    f"tags.`{tag}` = '{quoted}'",
                    order_by=NEWEST_FIRST,
                )
            )
