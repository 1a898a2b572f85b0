"""The `pipeline` command: one subcommand per stage, and what people ask of the results.

Every stage is imported where it runs: TensorFlow alone takes 6 s, `--help` must not.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.errors import EXIT_CODE, EXIT_CODE_PASSING, ImageError, PipelineError

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From images to a registered classifier. `dvc repro` runs all stages in order.",
)
STAGES = "Stages (dvc repro runs them)"
FLOWS = "All stages, as a Prefect flow"
RESULTS = "Results"
Wanted = Literal["auto", "cpu", "gpu"]
Until = Literal["validate", "preprocess", "train", "evaluate", "register"]
ModelName = Annotated[str, typer.Argument(help="One of `models` in params.yaml.")]


@app.command(rich_help_panel=STAGES)
def resolve() -> None:
    """Check params.yaml and write the plan of the dataset and of each model."""
    from pipeline.resolve import resolve

    params = _params()
    resolve(params, _workspace().plan)


@app.command(rich_help_panel=STAGES)
def ingest() -> None:
    """Fetch the dataset and pack it into arrays."""
    from pipeline.ingest import ingest

    workspace = _workspace()
    ingest(workspace.dataset_plan, workspace.raw.path)


@app.command(rich_help_panel=STAGES)
def validate() -> None:
    """Check the dataset; nothing trains on data that failed."""
    from rich.console import Console

    from pipeline.validate import render, validate

    workspace = _workspace()
    report = validate(workspace.raw, _params().validation, workspace.validation, workspace.accepted)
    Console().print(render(report))


@app.command(rich_help_panel=STAGES)
def preprocess() -> None:
    """Split the dataset into train, val and test."""
    from pipeline.preprocess import preprocess

    workspace = _workspace()
    preprocess(
        workspace.raw,
        workspace.validation_report,
        _params().preprocess,
        workspace.splits.path,
        workspace.samples,
    )


@app.command(rich_help_panel=STAGES)
def train(model: ModelName) -> None:
    """Train one model and track it as an MLflow run."""
    _import_tensorflow()
    from pipeline.train import train

    params, workspace = _params(), _workspace()
    train(
        workspace.splits,
        workspace.model_plan(model),
        workspace.trained(model).path,
        device=params.device,
        deterministic=params.deterministic,
    )


@app.command(rich_help_panel=STAGES)
def evaluate(model: ModelName) -> None:
    """Measure one model on the test split."""
    _import_tensorflow()
    from pipeline.evaluate import evaluate

    workspace = _workspace()
    evaluate(workspace.trained(model), workspace.splits, workspace.evaluation(model).path)


@app.command(rich_help_panel=STAGES)
def register() -> None:
    """Register the model that is best on the validation split."""
    _import_tensorflow()
    from pipeline.register import register

    params, workspace = _params(), _workspace()
    register(
        {name: (workspace.trained(name), workspace.evaluation(name)) for name in params.models},
        workspace.splits,
        params.floors,
        workspace.registered_path,
        params.auto_promote,
    )


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
    device: Annotated[Wanted | None, typer.Option(help="Where to train.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of weights, order, augmentation.")
    ] = None,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote", help="Whether a first version may go into production."
        ),
    ] = None,
    until: Annotated[Until, typer.Option(help="The last stage to run.")] = "register",
) -> None:
    """Run the flow `train` on the spot, in this working tree; no server is needed.

    What is asked for is written into params.yaml, as `dvc exp run -S` does, and stays there.
    """
    from rich.console import Console

    from flows.here import run_here

    names = tuple(name.strip() for name in models.split(",")) if models else None
    run_here(
        dataset=dataset,
        models=names,
        settings=settings or [],
        device=device,
        seed=seed,
        promote=promote,
        until=until,
    )
    if until == "register":
        from pipeline.report import render

        Console().print(render(_workspace(), _params().models))


@app.command(rich_help_panel=RESULTS)
def report() -> None:
    """Show the models of the dataset side by side, and what to try next."""
    from rich.console import Console

    from pipeline.report import render

    Console().print(render(_workspace(), _params().models))


@app.command(rich_help_panel=RESULTS)
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[
        str,
        typer.Option(help="<name>@<alias>, <name>/<version>, or a folder models/<dataset>/<model>"),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Classify images of any size with a registered model."""
    from rich.console import Console

    _import_tensorflow()
    from pipeline import predict as prediction

    rows = prediction.predict(images, model, top)
    if as_json:
        print(json.dumps(prediction.as_json(rows), indent=2, ensure_ascii=False))
    else:
        Console().print(prediction.render(rows))
    broken = [row.file for row in rows if row.error]
    if broken:
        raise ImageError(f"{len(broken)} of {len(rows)} images cannot be read: {broken[0]}, …")


@app.command(rich_help_panel=RESULTS)
def device(
    wanted: Annotated[
        Wanted, typer.Argument(help="What must be there: `gpu` fails where TensorFlow finds none.")
    ] = "auto",
) -> None:
    """Show the GPUs that training finds, or that there are none."""
    _import_tensorflow()
    from pipeline.claim import visible
    from pipeline.device import describe, require

    found = require(wanted)
    for gpu, name in zip(found, visible(len(found)), strict=True):
        row = describe(gpu, name)
        print(f"gpu {name}: {row.name}, driver {row.driver}, {row.memory_gib} GiB")
    if not found:
        print("no GPU; training runs on the CPU")


@app.command(rich_help_panel=RESULTS)
def ui(
    port: Annotated[int, typer.Option(help="Where the page is served on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the store that the runs went to."""
    from pipeline.tracking.store import connect, store_uri

    connect()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri()]
    os.execv(sys.executable, [*command, "--port", str(port)])


def _import_tensorflow() -> None:
    """Import TensorFlow without its greeting, which it writes to stderr past every log level."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _params() -> "Params":
    from pipeline.params import load_params

    return load_params()


def _workspace() -> "Workspace":
    from pipeline.workspace import Workspace

    return Workspace(_params().dataset)


def main() -> None:
    """Run the command line: an error that the user can mend is one line and exit code 1."""
    # So that a run that is told to end says KILLED in the store.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except PipelineError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_CODE_PASSING if error.passing else EXIT_CODE)
