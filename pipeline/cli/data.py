"""Commands on images: the story of a dataset, and where an image is."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import app, params_here, print_json
from pipeline.errors import EXIT_CODE_NO

DATA = "Images"


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
    from rich.console import Console

    from pipeline.artifacts import project
    from pipeline.reports.dataset import page, table
    from pipeline.reports.dataset.facts import as_json as facts
    from pipeline.workspace import Workspace

    found, path = page.tell(Workspace(dataset or params_here().dataset, project.root()), output)
    stored = [] if no_track else page.track(found, path)
    if as_json:
        print_json({**facts(found), "page": str(path), "stored_with": stored})
    else:
        console = Console()
        console.print(table.render(found), highlight=False)
        console.print(f"\n{path}", highlight=False, markup=False, soft_wrap=True)
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
    from rich.console import Console

    from pipeline.artifacts import project
    from pipeline.reports import trace as made
    from pipeline.serving.predict import find_images

    found = made.trace(find_images(images), project.root())
    if as_json:
        print_json(made.as_json(found))
    else:
        for part in made.render(found):
            Console().print(part, highlight=False)
    if not all(one.found for one in found):
        raise typer.Exit(EXIT_CODE_NO)
