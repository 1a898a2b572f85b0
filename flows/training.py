"""The flow `train`: one task per DVC stage, in a git worktree or on the spot."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.tasks import Task
from pydantic import Field

from flows import keep, view
from flows.checkout import Checkout, overlooked, worktree
from flows.form import CHOICES, Dataset, Device, Model, RecipeChanges, Seed, Until
from flows.job import Job, steps
from flows.request import Request
from flows.stages import StageFailed, Stages, environment, run_command
from pipeline.artifacts.models import RunInfo
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import PipelineError, TrackingError
from pipeline.redaction import redact, without_login
from pipeline.reports.markdown import escape
from pipeline.tracking.describe import FLOW_RUN_ID, FLOW_RUN_URL

# What can pass is tried again after these seconds; everything else fails at once.
RETRY_DELAYS: list[float] = [5, 20, 60]
# The key of the table that other flows read.
ROWS = "models"


def without_secrets(record: logging.LogRecord) -> bool:
    """Keep passwords out of what is logged, also of the causes of an error."""
    record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info:
        # Formatters take it as it is where it is there.
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return True


# Every flow is in a module that imports this one, and logs under one of these names.
for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).addFilter(without_secrets)


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed stage is worth another try."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.retryable


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=may_pass,
)
def run_stage(job: Job, step: str) -> State[Any]:
    """Let DVC run a stage, or find its result; the state says which, and names the MLflow run."""
    log, progress = get_run_logger(), view.EpochProgress()

    def on_line(line: str) -> None:
        log.info(line)
        progress.on_line(line)

    ran = job.finished[step] = job.stages.run(step, on_line)
    text = "DVC ran it" if ran else "DVC has the result: nothing changed"
    if model := step.partition("@")[2]:
        run = job.workspace.trained(model).run
        text += f"; MLflow run {run.run_id}"
        _show_stage(job, step, run)
    return Completed(message=text) if ran else Completed(name="Cached", message=text)


def _show_stage(job: Job, step: str, run: RunInfo) -> None:
    """Show what a model's stage has made, and the MLflow run that has it all."""
    name = f"{run.dataset} {run.model}"
    if step.startswith("train@"):
        view.show_run(run)
        if job.finished[step]:
            view.show_history(name, view.read_history(job.workspace.trained(run.model).history))
    else:
        picture = job.workspace.evaluation(run.model).path / "plots" / "confusion.png"
        view.show_picture(picture, view.key("confusion", name), f"Confusion matrix of {name}.")


@task(name="device", task_run_name="device", cache_policy=NO_CACHE, persist_result=False)
def require_device(checkout: Checkout, wanted: str, given: Mapping[str, str]) -> None:
    """Fail at once where a GPU is asked for and there is none."""
    run_command(checkout, ["pipeline", "device", wanted], given, seconds=50)


@task(
    name="keep",
    task_run_name="keep",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=may_pass,
)
def keep_files(job: Job) -> None:
    """Keep what made the new models with their MLflow runs, and push to the DVC remote."""
    new = [run.run_id for run in job.trained() if job.finished[f"train@{run.model}"]]
    keep.with_runs(job.checkout, job.workspace.validation, new)
    if any(job.finished.values()) and job.stages.push(get_run_logger().info):
        get_run_logger().info("pushed to the DVC remote")


def chain(checkout: Checkout, request: Request, until: Until) -> list[dict[str, Any]]:
    """Run the stages one after the other, and show what came of them.

    Args:
        checkout: the files to work on.
        request: what is asked for.
        until: the last stage that is wanted.

    Returns:
        A row per model, as `Job.row` makes it.

    Raises:
        ParamsError: the request asks for something that this revision does not have.
        StageFailed: a stage failed.
    """
    return _show(run_until(checkout, request, until))


def run_until(checkout: Checkout, request: Request, until: Until) -> Job:
    """Run the stages one after the other; raises as `chain` does.

    Returns:
        The job, whose stages are over.
    """
    params = request.apply(checkout.root / PARAMS_FILE)
    # Of this process too: it tells MLflow what outlives the run.
    os.environ.update(flow_run_variables())
    given = environment(checkout)
    os.environ["MLFLOW_TRACKING_URI"] = given["MLFLOW_TRACKING_URI"]
    keep.end_left_runs(checkout.left)
    if params.device == "gpu":
        require_device(checkout, params.device, given)
    from flows.torn_lock import set_aside  # half a second, as it imports DVC

    if text := set_aside(checkout.root):
        get_run_logger().warning(text)
    with Stages(checkout, given) as stages:
        job = Job(checkout, params, stages)
        try:
            _run_stages(job, steps(params.models, until))
        except StageFailed as failure:
            _show_failure(job, str(failure))
            # What was made is kept if it can be; the reason is that of the stage.
            keep_files(job, return_state=True)
            raise
        keep_files(job)
    return job


def _run_stages(job: Job, names: list[str]) -> None:
    before: list[State[Any]] = []
    for step in names:
        stage, _, model = step.partition("@")
        named = run_stage.with_options(name=stage, task_run_name=f"{stage} {model}".strip())
        before = [named(job, step, wait_for=before, return_state=True)]
        before[0].result()


def _show(job: Job) -> list[dict[str, Any]]:
    runs = job.trained()
    rows = [job.row(run) for run in runs]
    create_table_artifact(rows, ROWS, "The models of this run, for programs.")
    params = job.params
    facts = {"commit": job.checkout.commit[:10], "seed": params.seed}
    if runs:
        facts["device"] = runs[0].device
    title = f"{params.dataset}: {', '.join(params.models)}"
    view.show_summary(title, facts, rows, runs, job.version())
    return rows


def _show_failure(job: Job, reason: str) -> None:
    """Show the report that stopped the run, if it was one."""
    summary = job.workspace.validation / "summary.json"
    if "ingest" not in job.finished or "validate" in job.finished or not summary.exists():
        return
    report = job.workspace.validation_report
    docs = escape("The Data Docs are lost: MLflow cannot be reached.")
    with suppress(TrackingError):
        page = keep.failed_validation(job.params.dataset, job.workspace.validation, reason)
        docs = view.page_link("Data Docs", *page, keep.DATA_DOCS)
    view.show_validation(report, docs)


def flow_run_variables() -> dict[str, str]:
    """Return what the MLflow runs are told of the flow run."""
    variables = {FLOW_RUN_ID: str(flow_run.id or "")}
    if url := flow_run.ui_url:
        variables[FLOW_RUN_URL] = without_login(url)
    return variables


def plain(overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the overrides of the form as they are written in params.yaml."""
    return {
        name: changes.model_dump(mode="json", exclude_none=True)
        for name, changes in overrides.items()
    }


def run_name() -> str:
    """Return what the run is called: `digits: dense, cnn`."""
    given = flow_run.parameters
    return f"{given['dataset']}: {', '.join(given['models'])}"


@flow(name="train", flow_run_name=run_name, persist_result=False)
def train(
    dataset: Dataset = CHOICES.dataset,
    models: Annotated[list[Model], Field(min_length=1)] = list(CHOICES.models),  # noqa: B006
    overrides: dict[Model, RecipeChanges] = {},  # type: ignore[valid-type]  # noqa: B006
    device: Device = "auto",
    seed: Seed | None = None,
    promote: bool = True,
    until: Until = "register",
    revision: str = "HEAD",
) -> list[dict[str, Any]]:
    """Train, compare and register models of one dataset, in a git worktree of their own.

    What was computed before is not computed again: it shows as Cached.

    Args:
        dataset: Which images.
        models: Which recipes of the dataset, side by side; the best on validation is registered.
        overrides: Changes of recipes for this run, by model, such as {"cnn": {"epochs": 3}}.
        device: auto takes a GPU where the worker has one; gpu fails where it has none.
        seed: Of weights, order and augmentation; empty takes that of params.yaml.
        promote: Whether a version that passes the gate goes into production by itself.
        until: The last stage to run.
        revision: The git commit, branch or tag whose code and params.yaml run.
    """
    request = Request(
        dataset=dataset,
        models=tuple(models),
        overrides=plain(overrides),
        device=device,
        seed=seed,
        promote=promote,
    )
    with worktree(revision, str(flow_run.id)) as checkout:
        if text := overlooked(checkout):
            get_run_logger().warning(text)
        return chain(checkout, request, until)
