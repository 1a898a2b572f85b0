"""The flow `tune`: a search over a recipe's space, its trials spread over the workers of a pool."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import optuna
from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field, ValidationError

from flows.execution.snapshot import Snapshot, take
from flows.forms.form import CHOICES, Dataset, Model, Seed
from flows.forms.patch import changes
from flows.retries import FLOWS
from flows.search import findings
from flows.search.children import Bar, Children, ChildrenError, Pool
from flows.search.server import cancel_children_of, has_ended
from flows.search.study import (
    StudyRecord,
    TrialRecord,
    counted,
    distributions,
    new_study,
    read_record,
    records,
    restore,
    write_record,
)
from flows.search.trials import Target, Trials
from pipeline.data.settings import Name
from pipeline.errors import ParamsError, TrackingError

if TYPE_CHECKING:
    from pipeline.tracking.groups import Groups, Parent
    from pipeline.tracking.run import Run

EXPERIMENT, STUDY, RECORD = "tuning", "study", "trials.json"
SECONDS_BETWEEN_POLLS = 5.0


@flow(name="tune", flow_run_name="{dataset}: {model}", validate_parameters=True)
def tune(
    dataset: Dataset = CHOICES.dataset,
    model: Model = CHOICES.models[0],
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20,
    parallel: Annotated[int, Field(ge=1, le=64)] = 2,
    pool: Pool = "cpu",
    study: Name | None = None,
    seed: Seed = 0,
    prune: bool = True,
    revision: str = "HEAD",
) -> str:
    """Search the space that params.yaml has under `search`, and return the best recipe as a patch.

    The best recipe is the most accurate on the validation split. Started again under the same name,
    a search that was interrupted goes on where it stopped.

    Args:
        dataset: Which images.
        model: Which recipe.
        trials: How many in all, those of earlier runs of the same study included.
        parallel: How many train at once.
        pool: Whose workers train.
        study: The name to go on under; empty is dataset.model.
        seed: Of the search, not of the models.
        prune: Whether trials that are worse than half of the others at the same epoch end early.
        revision: The git commit, branch or tag whose code and params.yaml run.
    """
    snapshot = take(revision, str(flow_run.id))
    target = find_target(snapshot, dataset, model)
    from pipeline.tracking.groups import Groups
    from pipeline.tracking.runs import new_run

    groups = Groups()
    search = Search(study or f"{dataset}.{model}", target, groups)
    earlier = search.earlier()
    with new_run(EXPERIMENT, search.name) as parent:
        parent.log_tags({STUDY: search.name, "dataset": dataset, "model": model})
        parent.log_tags({"flow_run_id": flow_run.id, "flow_run_url": flow_run.ui_url})
        asked = {"trials": trials, "parallel": parallel, "pool": pool, "seed": seed, "prune": prune}
        parent.log_params({**asked, "revision": revision, "commit": snapshot.commit})
        search.begin(parent, earlier, seed, prune)
        if (left := trials - counted(records(search.study))) > 0:
            search.go_on(left, parallel, pool, prune)
        return findings.show(search.record(), parent, groups, snapshot.text, search.study)


def find_target(snapshot: Snapshot, dataset: str, model: str) -> Target:
    """Return what to tune.

    Raises:
        ParamsError: there is no such recipe, or no space for it, or its layers are others.
    """
    params = snapshot.params_of(dataset, model, {})
    recipe, space = params.recipe(dataset, model), params.space(dataset, model)
    for key, distribution in space.items():
        if key.startswith("layers."):
            one = {key: distribution.samples()[0]}
            try:
                snapshot.params_of(dataset, model, {model: changes(one, recipe)})
            except ParamsError as error:
                raise ParamsError(f"search.{dataset}.{model}: {key}: {error}") from None
    return Target(dataset, model, recipe, snapshot.commit, distributions(space))


class Search:
    """A study, and its record in MLflow, which is updated after every trial."""

    def __init__(self, name: str, target: Target, groups: "Groups") -> None:
        self.name, self.target, self.groups = name, target, groups
        self.study: optuna.Study
        self.parent: Run

    def earlier(self) -> StudyRecord | None:
        """Return the record of the last run of this study, which must have ended.

        Raises:
            ParamsError: the study is of another recipe.
            ChildrenError: another run is working on it.
        """
        from pipeline.tracking.runs import end_runs_of

        parents = self.groups.parents(EXPERIMENT, STUDY, self.name)
        if parents and (flow_run_id := parents[0].flow_run_id):
            _wait_for(self.name, flow_run_id)
            if left := cancel_children_of(flow_run_id):
                get_run_logger().warning("cancelled %d trials of a killed run", left)
            end_runs_of(flow_run_id)
        record = self._read(parents)
        if record and (record.dataset, record.model) != (self.target.dataset, self.target.model):
            raise ParamsError(
                f"the study {self.name!r} is of {record.dataset} {record.model}; give this one "
                "another name"
            )
        return record

    def _read(self, parents: Sequence["Parent"]) -> StudyRecord | None:
        """Return the newest whole record: a run may have been killed while it wrote its own."""
        for parent in parents:
            if (text := self.groups.text(parent.run_id, RECORD)) is None:
                continue
            try:
                return read_record(text)
            except ValidationError:
                get_run_logger().warning("%s of the MLflow run %s is torn", RECORD, parent.run_id)
        return None

    def begin(self, parent: "Run", earlier: StudyRecord | None, seed: int, prune: bool) -> None:
        """Create the study with its earlier trials, and write the record of this run."""
        self.parent = parent
        known = earlier.trials if earlier else ()
        self.study = new_study(seed, len(known), prune)
        left_out = restore(self.study, known, self.target.space)
        log = get_run_logger()
        if earlier is not None:
            log.info("going on from %d trials of %s", len(known) - left_out, self.name)
            if earlier.recipe != self._recipe():
                log.warning("the recipe has changed since; earlier values may not be comparable")
        if left_out:
            log.warning("%d earlier trials do not fit the space as it is now", left_out)
        parent.log_text(write_record(self.record()), RECORD)

    def go_on(self, left: int, parallel: int, pool: Pool, prune: bool) -> None:
        """Run more trials.

        Raises:
            ChildrenError: too many trials in a row failed.
        """
        bar = Bar("tune", left)
        with Children(pool) as children:
            trials = Trials(self.study, self.target, children, self.groups, prune)
            # A pruned trial holds its place until its run is cancelled.
            while left or len(children):
                while left and len(children) < parallel:
                    trials.start()
                    left -= 1
                for number in trials.step():
                    self._ended(number, bar)

    def _ended(self, number: int, bar: Bar) -> None:
        record = next(row for row in records(self.study) if row.number == number)
        text = f"trial {number} {_in_words(record)}"
        get_run_logger().info(text)
        bar.advance(text)
        try:
            if record.run_id:
                self.groups.adopt(self.parent.run_id, [record.run_id])
            self.parent.log_text(write_record(self.record()), RECORD)
        except TrackingError as error:
            # The next record has what this one lacks.
            if not error.retryable:
                raise
            get_run_logger().warning("%s", error)

    def record(self) -> StudyRecord:
        """Return the record of the study."""
        return StudyRecord(
            study=self.name,
            dataset=self.target.dataset,
            model=self.target.model,
            recipe=self._recipe(),
            trials=records(self.study),
        )

    def _recipe(self) -> dict[str, Any]:
        return self.target.recipe.model_dump(mode="json")


def _in_words(record: TrialRecord) -> str:
    if record.state == "COMPLETE":
        return f"reached {record.value:.2%}"
    return f"{record.state.lower()}: {record.reason}"


def _wait_for(name: str, flow_run_id: str) -> None:
    """Wait until an earlier run of a study has ended; the server notices if it was killed."""
    deadline = time.monotonic() + FLOWS["tune"].wait.total_seconds()
    while not has_ended(flow_run_id):
        if time.monotonic() > deadline:
            raise ChildrenError(
                f"the flow run {flow_run_id} is working on the study {name!r}: wait for it, "
                "cancel it, or give this one another name"
            )
        get_run_logger().info("waiting for the flow run %s to end", flow_run_id)
        time.sleep(SECONDS_BETWEEN_POLLS)
