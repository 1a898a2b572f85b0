"""`pipeline reproduce`: a registered model once more, and whether it is the same."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import app, import_tensorflow, print_json
from pipeline.cli.registry import REGISTRY
from pipeline.errors import EXIT_CODE_NO

if TYPE_CHECKING:
    from flows.reproduce import Reproduction


@app.command(rich_help_panel=REGISTRY)
def reproduce(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="<name>@<alias>, or <name>/<version>.")
    ],
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="The share of test images that may be called differently, where the weights "
            "need not be identical.",
        ),
    ] = 0.02,
    keep: Annotated[
        Path | None, typer.Option(help="A new folder that the new model is copied to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Train a registered model again from its passport; exit code 3 where it is not the same.

    It works in a git worktree of its own, and registers nothing.
    """
    import_tensorflow()
    from flows.reproduce import reproduce
    from pipeline.artifacts import TrainedModel
    from pipeline.tracking import registry

    found = registry.find(model)
    passport, files = registry.read_passport(found), TrainedModel(registry.fetch(found))
    done = reproduce(
        passport,
        found.version,
        files,
        tolerance=tolerance,
        keep=keep,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if as_json:
        print_json(done.as_json())
    else:
        _show(done)
    if not done.same:
        raise typer.Exit(EXIT_CODE_NO)


def _show(done: "Reproduction") -> None:
    weights = "identical, bit for bit"
    if not done.identical:
        apart = done.weights_apart
        weights = "of other shapes" if apart is None else f"differ by up to {apart:.3g}"
    limit = "they have to be identical" if done.strict else f"allowed: {1 - done.tolerance:.2%}"
    before, after = done.accuracy
    print(f"weights        {weights}")
    print(f"probabilities  differ by up to {done.probabilities_apart:.3g}")
    print(f"labels         {done.labels_agree:.2%} of the test images agree; {limit}")
    print(f"test accuracy  {before:.2%}, now {after:.2%}")
    for row in done.differ:
        print(f"differs        {row}")
    if not done.differ:
        print("differs        nothing that is known")
    verdict = "reproduced" if done.same else "NOT reproduced"
    print(f"{done.name}/{done.version} is {verdict}")
