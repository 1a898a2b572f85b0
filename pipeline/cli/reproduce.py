"""`pipeline reproduce`: a registered model once more, and whether it is the same."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.artifacts.record import DeviceChoice
from pipeline.cli.app import app, import_tensorflow, print_json
from pipeline.cli.registry import REGISTRY
from pipeline.errors import EXIT_CODE_NO

if TYPE_CHECKING:
    from flows.reproduction.verdict import Reproduction


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
    device: Annotated[
        DeviceChoice | None,
        typer.Option(help="To train on; by default the kind that trained it."),
    ] = None,
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
    from pipeline.artifacts.models import TrainedModel
    from pipeline.registry import model_files, versions

    found = versions.find(model)
    passport, files = model_files.read_passport(found), TrainedModel(model_files.fetch(found))
    if made := passport.derived_from:
        origin = f"{found.name}/{made.version} by {made.by}"
        print(f"derived from {origin}: its training is repeated", file=sys.stderr, flush=True)
    done = reproduce(
        passport,
        found.version,
        files,
        tolerance=tolerance,
        device=device,
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
    found = done.found
    weights = f"{found.arrays} arrays, identical bit for bit"
    if not found.identical:
        difference = found.max_weight_difference
        far = "not comparable" if difference is None else f"by up to {difference:.3g}"
        weights = f"{len(found.weights)} of {found.arrays} arrays differ, {far}"
    limit = f"at least {1 - done.tolerance:.2%} are wanted"
    if done.strict:
        limit = "the weights have to be identical"
    before, after = found.accuracy
    print(f"weights        {weights}")
    print(f"probabilities  differ by up to {found.max_probability_difference:.3g}")
    left_out = f" ({found.left_out:,} left out as seen)" if found.left_out else ""
    images = f"{found.images:,} test images{left_out}"
    print(f"labels         {found.labels_agree:.2%} of {images} agree; {limit}")
    print(f"test accuracy  {before:.2%}, now {after:.2%}")
    print(f"differs        {len(done.differ) or 'nothing that is known'}")
    for row in done.differ:
        print(f"  {row}")
    if not found.identical:
        causes = "; ".join(done.causes) or "no difference is known that could be the cause"
        print(f"likely causes  {causes}")
    print(f"{done.name}/{done.version} is {'reproduced' if done.same else 'NOT reproduced'}")
