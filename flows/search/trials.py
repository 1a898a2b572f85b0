"""The trials of a study, each a run of `train` on some worker, watched while they train."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import Trial, TrialState
from prefect import get_run_logger

from flows.forms.patch import changes
from flows.search.children import Children, ChildrenError, Ended
from flows.search.study import chosen
from pipeline.errors import TrackingError
from pipeline.models.recipes import Recipe

if TYPE_CHECKING:
    from pipeline.tracking.groups import Groups

METRIC = "val_accuracy"
# After so many failures in a row, the values that were tried are not the cause.
FAILURES_IN_A_ROW = 5


@dataclass
class Running:
    """A trial that trains.

    Attributes:
        run_id: its MLflow run, once that has begun.
        epochs: those already reported to the study.
    """

    trial: Trial
    run_id: str | None = None
    epochs: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Target:
    """What is tuned: a recipe of a dataset at a commit, over a space."""

    dataset: str
    model: str
    recipe: Recipe
    commit: str
    space: Mapping[str, BaseDistribution]

    def parameters(self, trial: Trial) -> dict[str, Any]:
        """Return the parameters of the run of `train` that a trial is."""
        return {
            "dataset": self.dataset,
            "models": [self.model],
            "overrides": {self.model: changes(chosen(trial), self.recipe)},
            "until": "train",
            "auto_promote": False,
            "revision": self.commit,
        }


class Trials:
    """The running trials, and what is reported to the study."""

    def __init__(
        self, study: optuna.Study, target: Target, children: Children, groups: "Groups", prune: bool
    ) -> None:
        self.study, self.target, self.children = study, target, children
        self.groups, self.prune = groups, prune
        self.running: dict[UUID, Running] = {}
        self.failures = 0

    def start(self) -> None:
        """Let the study choose values, and start a training with them."""
        trial = self.study.ask(dict(self.target.space))
        child = self.children.start(self.target.parameters(trial))
        trial.set_user_attr("flow_run_id", str(child))
        self.running[child] = Running(trial)

    def step(self) -> list[int]:
        """Wait a moment, and return the numbers of the trials that have ended.

        Raises:
            ChildrenError: so many have failed in a row that the values cannot be the reason.
        """
        over = []
        for ended in self.children.ended():
            # A pruned trial has been reported before its run ended.
            if (running := self.running.pop(ended.flow_run_id, None)) is not None:
                self._finish(ended.flow_run_id, running, ended)
                over.append(running.trial.number)
        if self.prune:
            pruned = [r.trial.number for c, r in list(self.running.items()) if self._prune(c, r)]
            over += pruned
        return over

    def _finish(self, child: UUID, running: Running, ended: Ended) -> None:
        """Report the result of a trial to the study."""
        trial = running.trial
        if ended.rows:
            row = ended.rows[0]
            # A cached one has the MLflow run of another flow run.
            running.run_id = row.run_id
            trial.set_user_attr("seconds", row.training_seconds)
        for _ in self._new_epochs(child, running):
            pass
        if running.run_id:
            trial.set_user_attr("run_id", running.run_id)
        if ended.rows:
            self.study.tell(trial, ended.rows[0].val_accuracy)
            self.failures = 0
            return
        reason = f"{ended.state}: {ended.reason}"
        trial.set_user_attr("reason", reason)
        get_run_logger().warning("trial %d has no result: %s", trial.number, reason)
        # Values with which training fails are poor, and the sampler should learn that.
        collapsed = ended.state == "Failed" and bool(running.epochs)
        self.study.tell(trial, state=TrialState.PRUNED if collapsed else TrialState.FAIL)
        self.failures = 0 if collapsed else self.failures + 1
        if self.failures >= FAILURES_IN_A_ROW:
            raise ChildrenError(f"{self.failures} trials in a row have failed; the last: {reason}")

    def _new_epochs(self, child: UUID, running: Running) -> Iterator[int]:
        """Report the epochs that MLflow has received since the last call.

        A store that is unreachable for a while does not stop the search.
        """
        try:
            if running.run_id is None:
                running.run_id = self.groups.run_of(self.target.dataset, str(child))
            if running.run_id is None:
                return
            history = self.groups.history(running.run_id, METRIC)
        except TrackingError as error:
            if not error.retryable:
                raise
            return
        for epoch in sorted(set(history) - running.epochs):
            running.epochs.add(epoch)
            running.trial.report(history[epoch], epoch)
            yield epoch

    def _prune(self, child: UUID, running: Running) -> bool:
        """Cancel a trial that is worse than the others at the same epoch; return whether it was."""
        for epoch in self._new_epochs(child, running):
            if running.trial.should_prune():
                self.children.cancel(child)
                del self.running[child]
                trial = running.trial
                trial.set_user_attr("run_id", running.run_id)
                trial.set_user_attr("reason", f"pruned at epoch {epoch}")
                self.study.tell(trial, state=TrialState.PRUNED)
                return True
        return False
