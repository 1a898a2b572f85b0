"""One command per stage: `dvc repro` runs them."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from pipeline.cli.app import (
    NO_RESUME,
    app,
    choose_tensorflow,
    import_keras,
    import_tensorflow,
    params_here,
    workspace_here,
)
from pipeline.errors import ParamsError

STAGES = "Stages (dvc repro runs them)"
# DVC sets it for the stages of an experiment, and runs some of them in copies of the workspace.
EXPERIMENT, COPIES = "DVC_EXP_NAME", "/.dvc/tmp/exps/"
ModelName = Annotated[str, typer.Argument(help="One of `models` in params.yaml.")]
NoResume = Annotated[
    bool,
    typer.Option(
        "--no-resume",
        envvar=NO_RESUME,
        help="Begin at the first epoch, even where the same training was interrupted.",
    ),
]
Given = ParamSpec("Given")


def stage(run: Callable[Given, None]) -> Callable[Given, None]:
    """Make a stage a command, which runs in the project's folder wherever below it it is called."""

    @functools.wraps(run)
    def run_at_the_top(*args: Given.args, **kwargs: Given.kwargs) -> None:
        from pipeline.artifacts import project

        with contextlib.chdir(project.root()):
            run(*args, **kwargs)

    return app.command(rich_help_panel=STAGES)(run_at_the_top)


@stage
def resolve() -> None:
    """Check params.yaml and write the plan of the dataset and of each model."""
    from pipeline.data.watched import watch
    from pipeline.params.resolve import resolve
    from pipeline.production.floors import check_floors

    with _saying_what_stays():
        params, workspace = params_here(), workspace_here()
        # Here and not in the stage, so that a new metric does not run it again.
        check_floors(params.promotion)
        try:
            plan = resolve(params, workspace.plan)
        except ParamsError:
            workspace.remove_empty_folders()  # a name that does not exist leaves none behind
            raise
        watch(workspace.watched, plan.entry)


@contextlib.contextmanager
def _saying_what_stays() -> Iterator[None]:
    """Say where the mistake of a `dvc exp run -S` in the workspace is to be mended."""
    try:
        yield
    except ParamsError as error:
        if EXPERIMENT not in os.environ or COPIES in Path.cwd().as_posix():
            raise
        raise ParamsError(
            f"{error}; what -S says stays in params.yaml: put it right there (git diff shows it), "
            "and dvc repro brings back what the experiment took out of the workspace"
        ) from None


@stage
def ingest() -> None:
    """Fetch the dataset and pack it into arrays."""
    from pipeline.data import forgotten
    from pipeline.data.ingest import ingest
    from pipeline.data.settings import DatasetPlan

    workspace = workspace_here()
    plan = DatasetPlan.load(workspace.dataset_plan)
    ingest(plan, workspace.raw.path, forgotten=forgotten.contents())


@stage
def validate() -> None:
    """Check the dataset; nothing trains on data that failed."""
    from rich.console import Console

    from pipeline.validation.validate import render, validate

    workspace = workspace_here()
    report = validate(
        workspace.raw, params_here().validation, workspace.validation, workspace.accepted
    )
    Console().print(render(report))


@stage
def preprocess() -> None:
    """Split the dataset into train, val and test."""
    from pipeline.data.preprocess import preprocess

    workspace = workspace_here()
    preprocess(
        workspace.raw,
        workspace.validation_report,
        params_here().preprocess,
        workspace.splits.path,
        workspace.samples,
    )


@stage
def train(model: ModelName, no_resume: NoResume = False) -> None:
    """Train one model and track it as an MLflow run; go on where it was interrupted."""
    import_keras()
    from pipeline.models.plan import ModelPlan
    from pipeline.training.train import train

    params, workspace = params_here(), workspace_here()
    train(
        workspace.splits,
        ModelPlan.load(workspace.model_plan(model)),
        workspace.trained(model).path,
        device=params.device,
        deterministic=params.deterministic,
        resume=not no_resume,
    )


@stage
def evaluate(model: ModelName) -> None:
    """Measure one model on the test split."""
    import_tensorflow()
    from pipeline.evaluation.evaluate import evaluate

    workspace = workspace_here()
    evaluate(workspace.trained(model), workspace.splits, workspace.evaluation(model).path)


@stage
def register() -> None:
    """Register the model that is best on the validation split."""
    choose_tensorflow()  # for versions that Keras serves
    from pipeline.production.register import register
    from pipeline.reports import card

    params, workspace = params_here(), workspace_here()
    register(
        {name: (workspace.trained(name), workspace.evaluation(name)) for name in params.models},
        workspace.splits,
        workspace.validation_report,
        params.promotion,
        workspace.registered_path,
        params.auto_promote,
        publish=card.publish,
    )
