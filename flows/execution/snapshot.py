"""A revision, read once, so that all runs which one flow run starts use the same."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import get_run_logger

from flows.execution.checkout import overlooked, worktree
from flows.execution.stages import environment
from flows.forms.request import Request
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.params.params import Params

Changes = Mapping[str, Mapping[str, Any]]


def changes_of(overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the overrides of the form as they are written in params.yaml."""
    return {
        name: changes.model_dump(mode="json", exclude_none=True)
        for name, changes in overrides.items()
    }


@dataclass(frozen=True)
class Snapshot:
    """A commit, and the text of its params.yaml."""

    commit: str
    text: str

    def params(self) -> Params:
        """Return the parameters of params.yaml.

        Raises:
            ParamsError: the file has a value that is not allowed.
        """
        return self._apply(Request())

    def params_of(self, dataset: str, model: str, changes: Changes) -> Params:
        """Return the parameters of a run that trains one model with changes of recipes.

        Raises:
            ParamsError: the run would be refused.
        """
        own = {name: dict(change) for name, change in changes.items() if name == model}
        return self._apply(Request(dataset=dataset, models=(model,), overrides=own))

    def _apply(self, request: Request) -> Params:
        with TemporaryDirectory() as folder:
            path = Path(folder) / PARAMS_FILE
            path.write_text(self.text, newline="")
            return request.apply(path)


def take(revision: str, name: str) -> Snapshot:
    """Read a revision, and let this process use the same MLflow store as its runs.

    Args:
        revision: a commit, branch or tag.
        name: the name of the temporary worktree; the run's id.

    Raises:
        CheckoutError: there is no such revision, or no repository.
    """
    with worktree(revision, name) as checkout:
        os.environ["MLFLOW_TRACKING_URI"] = environment(checkout)["MLFLOW_TRACKING_URI"]
        if warning := overlooked(checkout):
            get_run_logger().warning(warning)
        text = (checkout.root / PARAMS_FILE).read_bytes().decode()
        return Snapshot(checkout.commit, text)
