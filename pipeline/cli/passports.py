"""Commands on a version's passport: all of it, or its model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.app import app, print_json
from pipeline.cli.registry import REGISTRY
from pipeline.errors import ParamsError
from pipeline.registry.spec import FORMS

if TYPE_CHECKING:
    from pipeline.registry.passport import Passport
    from pipeline.registry.versions import Registered

Spec = Annotated[str, typer.Argument(metavar="MODEL", help=f"{FORMS}.")]


@app.command(rich_help_panel=REGISTRY)
def lineage(
    model: Spec,
    check: Annotated[
        bool,
        typer.Option("--check", help="Download the model too: is it what was registered?"),
    ] = False,
    show: Annotated[
        Literal["diff", "params", "lock"] | None,
        typer.Option(help="Print this text alone, as it was: for `git apply`, or for a file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole passport, for machines.")
    ] = False,
) -> None:
    """Show what made a version: data, code, params, environment, runs, metrics."""
    if show and as_json:
        raise ParamsError("--show prints one text and --json the whole passport; give one of them")
    found, passport = _read(model)
    from rich.console import Console

    from pipeline.registry import model_files
    from pipeline.reports import lineage as made

    if check:
        model_files.fetch(found)
    if show:
        # As bytes: a diff must not be changed by what the terminal can show.
        typer.echo(made.text_of(passport, show).encode(), nl=False)
    elif as_json:
        print_json(made.as_json(found, passport, check))
    else:
        Console().print(made.tree(found, passport, check))


@app.command(rich_help_panel=REGISTRY)
def card(
    model: Spec,
    output: Annotated[
        Path | None,
        typer.Option(help="An .html or .md file; by default reports/<name>/card-<version>.html."),
    ] = None,
) -> None:
    """Write the model card of a version: use, data, metrics, limits."""
    if output is not None and output.suffix not in (".html", ".md"):
        raise ParamsError(f"--output {output} is neither .html nor .md")
    found, passport = _read(model)
    from tempfile import TemporaryDirectory

    from pipeline.artifacts import project
    from pipeline.artifacts.files import atomic
    from pipeline.registry.descriptions import fetch_evaluation
    from pipeline.reports.card import most_confused, render
    from pipeline.workspace import Workspace

    with TemporaryDirectory() as folder:
        evaluation = fetch_evaluation(found, Path(folder))
        plots = evaluation / "plots" if evaluation else None
        made = render(passport, found.version, most_confused(plots), plots, found.forgotten)
    reports = Workspace(found.name, project.root(or_here=True)).reports
    file = output or reports / f"card-{found.version}.html"
    with atomic(file) as part:
        part.write_text(made.html if file.suffix == ".html" else made.markdown)
    print(file)


def _read(model: str) -> "tuple[Registered, Passport]":
    from pipeline.registry import model_files, versions

    found = versions.find(model)
    return found, model_files.read_passport(found)
