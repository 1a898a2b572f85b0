"""All stages at once, as a Prefect flow."""

import contextlib
import os
from typing import Annotated

import typer

from pipeline.artifacts.project import Until
from pipeline.artifacts.record import DeviceChoice
from pipeline.cli.app import NO_RESUME, app, params_here, workspace_here
from pipeline.cli.stages import NoResume

FLOWS = "All stages, as a Prefect flow"


@app.command(rich_help_panel=FLOWS)
def run(
    dataset: Annotated[str | None, typer.Option(help="Which images.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Which of the dataset's recipes, such as dense,cnn.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="MODEL.KEY=VALUE, such as cnn.epochs=3; may be repeated."),
    ] = None,
    device: Annotated[DeviceChoice | None, typer.Option(help="Where to train.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of weights, order, augmentation.")
    ] = None,
    auto_promote: Annotated[
        bool | None,
        typer.Option(
            "--auto-promote/--no-auto-promote",
            help="Whether a version that passes the gate goes into production at once.",
        ),
    ] = None,
    until: Annotated[Until, typer.Option(help="The last stage to run.")] = "register",
    no_resume: NoResume = False,
) -> None:
    """Run the flow `train` in this working tree; no server is needed.

    The options that change a setting are written into params.yaml, as `dvc exp run -S` does, and
    stay there.
    """
    if no_resume:
        os.environ[NO_RESUME] = "1"  # for the stages
    from rich.console import Console

    from flows.train_here import run_here
    from pipeline.artifacts import project

    names = tuple(name.strip() for name in models.split(",")) if models else None
    with contextlib.chdir(project.root()):
        run_here(
            dataset=dataset,
            models=names,
            settings=settings or [],
            device=device,
            seed=seed,
            auto_promote=auto_promote,
            until=until,
        )
    if until == "register":
        from pipeline.reports.report import render

        Console().print(render(workspace_here(), params_here().models))
