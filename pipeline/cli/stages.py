"""One command per stage: `dvc repro` runs them."""

import contextlib
import functools
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from pipeline.cli.app import app, import_keras, import_tensorflow, params_here, workspace_here

STAGES = "Stages (dvc repro runs them)"
ModelName = Annotated[str, typer.Argument(help="One of `models` in params.yaml.")]
Given = ParamSpec("Given")


def stage(run: Callable[Given, None]) -> Callable[Given, None]:
    """Make a stage a command, which runs in the project's folder wherever below it it is called."""

    @functools.wraps(run)
    def run_at_the_top(*args: Given.args, **kwargs: Given.kwargs) -> None:
        from pipeline import project

        with contextlib.chdir(project.root()):
            run(*args, **kwargs)

    return app.command(rich_help_panel=STAGES)(run_at_the_top)


@stage
def resolve() -> None:
    """Check params.yaml and write the plan of the dataset and of each model."""
    from pipeline.resolve import resolve

    params = params_here()
    resolve(params, workspace_here().plan)


@stage
def ingest() -> None:
    """Fetch the dataset and pack it into arrays."""
    from pipeline.ingest import ingest

    workspace = workspace_here()
    ingest(workspace.dataset_plan, workspace.raw.path)


@stage
def validate() -> None:
    """Check the dataset; nothing trains on data that failed."""
    from rich.console import Console

    from pipeline.validate import render, validate

    workspace = workspace_here()
    report = validate(
        workspace.raw, params_here().validation, workspace.validation, workspace.accepted
    )
    Console().print(render(report))


@stage
def preprocess() -> None:
    """Split the dataset into train, val and test."""
    from pipeline.preprocess import preprocess

    workspace = workspace_here()
    preprocess(
        workspace.raw,
        workspace.validation_report,
        params_here().preprocess,
        workspace.splits.path,
        workspace.samples,
    )


@stage
def train(model: ModelName) -> None:
    """Train one model and track it as an MLflow run."""
    import_keras()
    from pipeline.train import train

    params, workspace = params_here(), workspace_here()
    train(
        workspace.splits,
        workspace.model_plan(model),
        workspace.trained(model).path,
        device=params.device,
        deterministic=params.deterministic,
    )


@stage
def evaluate(model: ModelName) -> None:
    """Measure one model on the test split."""
    import_tensorflow()
    from pipeline.evaluate import evaluate

    workspace = workspace_here()
    evaluate(workspace.trained(model), workspace.splits, workspace.evaluation(model).path)


@stage
def register() -> None:
    """Register the model that is best on the validation split."""
    import_tensorflow()
    from pipeline.register import register

    params, workspace = params_here(), workspace_here()
    register(
        {name: (workspace.trained(name), workspace.evaluation(name)) for name in params.models},
        workspace.splits,
        workspace.validation_report,
        params.promotion,
        workspace.registered_path,
        params.auto_promote,
    )
