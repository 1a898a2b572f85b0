"""`pipeline guarantee`: a version that says `unknown` where it would err too often."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import app, print_json
from pipeline.cli.registry import REGISTRY
from pipeline.errors import ParamsError

if TYPE_CHECKING:
    from pipeline.guarantee.guarantee import Guarantee


@app.command(rich_help_panel=REGISTRY)
def guarantee(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="<name>, <name>@<alias> or <name>/<version>; a name alone is its version in "
            "production, or else the challenger.",
        ),
    ],
    error: Annotated[float, typer.Option(help="The share of all images on which it may err.")],
    confidence: Annotated[
        float, typer.Option(help="The probability that the guarantee holds.")
    ] = 0.95,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would be, and register nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Register a version that answers `unknown` where it would err too often.

    The threshold is found on the test images; the new version goes into production as any other.
    """
    for name, value, most in (("error", error, 0.5), ("confidence", confidence, 0.9999)):
        if not 0 < value <= most:
            raise ParamsError(f"--{name} {value:g}; allowed: more than 0, at most {most:g}")
    from pipeline.artifacts import project
    from pipeline.production.guarantee import calibrate, default_version
    from pipeline.production.guarantee import guarantee as register
    from pipeline.registry import versions
    from pipeline.reports import guarantee as report
    from pipeline.workspace import Workspace

    named = "@" in model or "/" in model
    found = versions.find(model) if named else default_version(model)
    calibrated = calibrate(found, Workspace(found.name, project.root()).splits, error, confidence)
    made = None if dry_run else register(found, calibrated, publish=report.publish)
    if as_json:
        print_json(
            {
                "name": found.name,
                "version": made.version if made else None,
                "derived_from": found.version,
                **calibrated.guarantee.model_dump(),
                "not_sure": calibrated.guarantee.not_sure,
                "coverage": calibrated.guarantee.coverage,
            }
        )
        return
    _show(found.spec if made is None else made.spec, calibrated.guarantee)
    if made is None:
        print("nothing was registered: --dry-run")
        return
    print(f"registered as {made.spec}, from {found.spec}; {found.name}@challenger is now this one")
    print(f"put it into production: pipeline promote {made.name} {made.version}")


def _show(spec: str, promise: "Guarantee") -> None:
    print(f"{spec} {promise.sentence}")
    print(
        f"of these {promise.images:,} images it answers {promise.answered:,}, {promise.wrong:,} of "
        f"them wrongly; unknown: {promise.not_sure:,} it is not sure of, {promise.unlike:,} are "
        "unlike the training images"
    )
