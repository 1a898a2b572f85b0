"""The stages of one run, a Prefect task for each, and what the run shows of them."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.execution import keep, run_log
from flows.execution.checkout import Checkout
from flows.execution.job import Job, steps
from flows.execution.stages import StageFailed, Stages, environment, run_command
from flows.forms.request import Request
from flows.pages import view
from flows.pages.rows import ModelRow
from flows.retries import TASKS
from pipeline.artifacts.models import RunInfo
from pipeline.artifacts.project import PARAMS_FILE, Until
from pipeline.errors import TrackingError
from pipeline.redaction import without_login
from pipeline.reports.markdown import escape
from pipeline.tracking.describe import FLOW_RUN_ID, FLOW_RUN_URL

# The key of the table that other flows read.
ROWS = "models"

run_log.hide_secrets()


@task(name="stage", **TASKS["stage"].options)
def run_stage(job: Job, step: str) -> State[Any]:
    """Let DVC run a stage or take its cached result; the state says which, and the MLflow run."""
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
    """Show what a model's stage has made, and its MLflow run."""
    name = f"{run.dataset} {run.model}"
    if step.startswith("train@"):
        view.show_run(run)
        if job.finished[step]:
            view.show_history(name, view.read_history(job.workspace.trained(run.model).history))
    else:
        picture = job.workspace.evaluation(run.model).path / "plots" / "confusion.png"
        view.show_picture(picture, view.key("confusion", name), f"Confusion matrix of {name}.")


@task(name="device", task_run_name="device", **TASKS["device"].options)
def require_device(checkout: Checkout, wanted: str, given: Mapping[str, str]) -> None:
    """Fail at once where a GPU is asked for and there is none."""
    run_command(checkout, ["pipeline", "device", wanted], given, TASKS["device"].seconds)


@task(name="keep", task_run_name="keep", **TASKS["keep"].options)
def keep_files(job: Job) -> None:
    """Store what made the new models with their MLflow runs, and push to the DVC remote."""
    new = [run.run_id for run in job.trained() if job.finished[f"train@{run.model}"]]
    keep.with_runs(job.checkout, job.workspace.validation, new)
    if any(job.finished.values()) and job.stages.push(get_run_logger().info):
        get_run_logger().info("pushed to the DVC remote")


def chain(checkout: Checkout, request: Request, until: Until) -> list[ModelRow]:
    """Run the stages one after the other, and show the results.

    Args:
        checkout: the files to work on.
        request: what to train.
        until: the last stage.

    Returns:
        A row per model.

    Raises:
        ParamsError: this revision lacks something that the request names.
        StageFailed: a stage failed.
    """
    return _show(run_until(checkout, request, until))


def run_until(checkout: Checkout, request: Request, until: Until) -> Job:
    """Run the stages one after the other; raises as `chain` does.

    Returns:
        The finished job.
    """
    params = request.apply(checkout.root / PARAMS_FILE)
    # For this process too: it stores files with the MLflow runs.
    os.environ.update(flow_run_variables())
    given = environment(checkout)
    os.environ["MLFLOW_TRACKING_URI"] = given["MLFLOW_TRACKING_URI"]
    keep.end_left_runs(checkout.left)
    if params.device == "gpu":
        require_device(checkout, params.device, given)
    from flows.execution.torn_lock import set_aside  # half a second, as it imports DVC

    if text := set_aside(checkout.root):
        get_run_logger().warning(text)
    with Stages(checkout, given) as stages:
        job = Job(checkout, params, stages)
        try:
            _run_stages(job, steps(params.models, until))
        except StageFailed as failure:
            _show_failure(job, str(failure))
            # What was made is kept if possible; the run fails with the stage's error.
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


def _show(job: Job) -> list[ModelRow]:
    runs = job.trained()
    rows = [job.row(run) for run in runs]
    table = [row.model_dump(mode="json") for row in rows]
    create_table_artifact(table, ROWS, "The models of this run, for programs.")
    params = job.params
    facts = {"commit": job.checkout.commit[:10], "seed": params.seed}
    if runs:
        facts["device"] = runs[0].device
    title = f"{params.dataset}: {', '.join(params.models)}"
    view.show_summary(title, facts, rows, runs, job.version())
    return rows


def _show_failure(job: Job, reason: str) -> None:
    """Show the validation report, if that is what stopped the run."""
    summary = job.workspace.validation / "summary.json"
    if "ingest" not in job.finished or "validate" in job.finished or not summary.exists():
        return
    report = job.workspace.validation_report
    docs = escape("The Data Docs are lost: MLflow cannot be reached.")
    with suppress(TrackingError):
        page = keep.failed_validation(job.params.dataset, job.workspace.validation, reason)
        docs = view.page_link("Data Docs", *page, view.DATA_DOCS)
    view.show_validation(report, docs)


def flow_run_variables() -> dict[str, str]:
    """Return the variables that name the flow run for its MLflow runs."""
    variables = {FLOW_RUN_ID: str(flow_run.id or "")}
    if url := flow_run.ui_url:
        variables[FLOW_RUN_URL] = without_login(url)
    return variables
