"""Commands on images: a dataset, where an image is, and images that are to be forgotten."""

import sys
import webbrowser
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.app import app, params_here, print_json
from pipeline.errors import EXIT_CODE_NO, ParamsError

DATA = "Images"
WIDE = 1000


@app.command(rich_help_panel=DATA)
def data(
    dataset: Annotated[
        str | None, typer.Argument(help="By default the one that params.yaml names.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page; by default reports/<dataset>/dataset.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    no_track: Annotated[
        bool, typer.Option("--no-track", help="Do not store the page with the MLflow runs.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show a dataset: images by class, what changed since each version, duplicates, pictures."""
    from pipeline.artifacts import project
    from pipeline.reports.dataset import page, table
    from pipeline.reports.dataset.facts import as_json as facts
    from pipeline.workspace import Workspace

    found, path = page.tell(Workspace(dataset or params_here().dataset, project.root()), output)
    stored = [] if no_track else page.track(found, path)
    if as_json:
        print_json({**facts(found), "page": str(path), "stored_with": stored})
    else:
        _show([table.render(found)])
        print(f"\n{path}")
    if open_page:
        webbrowser.open(path.absolute().as_uri())


Files = Annotated[
    list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")
]


@app.command(rich_help_panel=DATA)
def trace(
    images: Files,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Find images in the datasets here, and the versions that were trained or tested on them.

    Exit code 3 where one is found nowhere.
    """
    from pipeline.artifacts import project
    from pipeline.reports import trace as made
    from pipeline.serving.predict import find_images

    found = made.trace(find_images(images), project.root())
    if as_json:
        print_json(made.as_json(found))
    else:
        _show(made.render(found))
    if not all(one.found for one in found):
        raise typer.Exit(EXIT_CODE_NO)


@app.command(rich_help_panel=DATA)
def forget(
    images: Files,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    who: Annotated[str, typer.Option(help="Who asks; by default the user and the machine.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would follow, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Keep images out of the data from now on, and flag the versions that were made with them."""
    from pipeline.artifacts import project
    from pipeline.production.forget import forget, plan_forgetting
    from pipeline.reports import card
    from pipeline.reports import forgetting as shown
    from pipeline.serving.predict import find_images

    root = project.root()
    planned = plan_forgetting(find_images(images), reason, who, root)
    if not as_json:
        _show(shown.render(planned))
    if not dry_run:
        if not yes:
            _ask(len(planned.images))
        forget(planned, card.describe, root)
    if as_json:
        print_json({**shown.as_json(planned), "done": not dry_run})
    else:
        print("nothing was changed (--dry-run)" if dry_run else shown.NEXT)


def _show(parts: Iterable[Any]) -> None:
    """Print tables and text; where nobody watches, names are not cut to the width of a terminal."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    for part in parts:
        console.print(part, highlight=False)


def _ask(count: int) -> None:
    """Let a person agree.

    Raises:
        ParamsError: nobody is there to ask.
    """
    if not sys.stdin.isatty():
        raise ParamsError("nobody is there to ask; look with --dry-run, and agree with --yes")
    typer.confirm(f"Forget {count} image{'s' if count != 1 else ''}?", abort=True)
