"""Commands that show and use results."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.artifacts.record import DeviceChoice
from pipeline.cli.app import app, import_tensorflow, params_here, workspace_here
from pipeline.errors import ImageError, ParamsError

RESULTS = "Results"


@app.command(rich_help_panel=RESULTS)
def report() -> None:
    """Show the models of the dataset side by side, and what to try next."""
    from rich.console import Console

    from pipeline.reports.report import render

    Console().print(render(workspace_here(), params_here().models))


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
    """Classify images of any size with a registered model.

    In a pipe or a file, the lines are separated by tabs.
    """
    from pipeline.serving import predict as prediction

    rows = prediction.predict(images, model, top)
    if as_json:
        print(json.dumps(prediction.as_json(rows), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(prediction.render(rows))
    else:
        print("\n".join(prediction.as_lines(rows)))
    broken = [row.file for row in rows if row.error]
    if broken:
        raise ImageError(f"{len(broken)} of {len(rows)} images cannot be read: {broken[0]}, …")


@app.command(rich_help_panel=RESULTS)
def device(
    wanted: Annotated[
        DeviceChoice,
        typer.Argument(help="What is required: `gpu` fails if TensorFlow finds none."),
    ] = "auto",
) -> None:
    """Show the GPUs that training would use."""
    import_tensorflow()
    from pipeline.training.claim import visible
    from pipeline.training.device import describe, require

    found = require(wanted)
    for gpu, name in zip(found, visible(len(found)), strict=True):
        row = describe(gpu, name)
        print(f"gpu {name}: {row.name}, driver {row.driver}, {row.memory_gib} GiB")
    if not found:
        print("no GPU; training runs on the CPU")


@app.command(rich_help_panel=RESULTS)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the store that the runs went to."""
    from pipeline.tracking.store import connect, store_uri

    _check_port(port)
    connect()
    # For one person: MLflow's four workers start slowly, and its jobs are for language models.
    environment = {"MLFLOW_WORKERS": "1", **os.environ}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # Not as an argument: other users of the machine could read a password in it.
    environment["MLFLOW_BACKEND_STORE_URI"] = store_uri()
    command = ["-m", "mlflow", "ui", "--app-name", "training", "--port", str(port)]
    os.execve(sys.executable, [sys.executable, *command], environment)


def _check_port(port: int) -> None:
    """Refuse a port that is in use: MLflow's server says neither which one nor what to do.

    Raises:
        ParamsError: the port cannot be used; the message suggests another one.
    """
    with socket.socket() as probe:
        # As the server does: a port that was closed a moment ago can be used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            other = port + 1 if 1024 <= port < 65535 else 5001
            raise ParamsError(
                f"port {port} cannot be used: {error.strerror}; use another one: "
                f"make ui PORT={other}, or pipeline ui --port {other}"
            ) from None
