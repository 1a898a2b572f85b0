"""Two models side by side."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import app, print_json
from pipeline.cli.results import RESULTS

Model = Annotated[
    str,
    typer.Argument(
        help="<name>@<alias>, <name>/<version>, an MLflow run id, or models/<dataset>/<model>"
    ),
]


@app.command(rich_help_panel=RESULTS)
def compare(
    a: Model,
    b: Model,
    output: Annotated[
        Path | None, typer.Option(help="The page; by default reports/compare/<a>-vs-<b>.html.")
    ] = None,
    flips: Annotated[
        int,
        typer.Option(
            min=0, help="How many images to show of each kind: right -> wrong, wrong -> right."
        ),
    ] = 36,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    no_track: Annotated[
        bool, typer.Option("--no-track", help="Do not store the page with the MLflow runs.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show two models side by side: metrics, flips, and what changed."""
    from rich.console import Console

    from pipeline.artifacts import project
    from pipeline.reports.compare import compare, track
    from pipeline.reports.comparing.comparison import as_json as facts
    from pipeline.reports.comparing.table import render

    found, page = compare(a, b, output, flips, project.root(or_here=True))
    if as_json:
        print_json({**facts(found), "page": str(page)})
    else:
        console = Console()
        console.print(render(found), highlight=False)
        console.print(f"\n{page}", highlight=False, markup=False, soft_wrap=True)
    if not no_track:
        track(found, page)
    if open_page:
        webbrowser.open(page.absolute().as_uri())
