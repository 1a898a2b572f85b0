"""The command that makes a smaller, faster version of a registered one."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.app import app, choose_tensorflow, params_here, print_json
from pipeline.cli.registry import REGISTRY, AsJson, promotion_content, show
from pipeline.errors import EXIT_CODE_NO
from pipeline.registry.ledger import Action

if TYPE_CHECKING:
    from pipeline.production.quantizing.quantize import Answers, Quantized


@app.command(rich_help_panel=REGISTRY)
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="<name>@<alias> or <name>/<version>.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make a version with 8-bit weights and activations, and ask the gate about it.

    Nothing goes into production by it. Exit code 3 where the gate would refuse it.
    """
    choose_tensorflow()  # for a version in production that Keras serves
    from pipeline.artifacts import project
    from pipeline.production.promote import promote
    from pipeline.production.quantizing.quantize import quantize
    from pipeline.registry import versions
    from pipeline.workspace import Workspace

    thresholds, source = params_here().promotion, versions.find(model)
    splits = Workspace(source.name, project.root()).splits
    made = quantize(source, splits)
    promotion = promote(made.version, splits, thresholds, dry_run=True)
    if as_json:
        print_json({**_content(made), "promotion": promotion_content(promotion)})
    else:
        print("\n".join(_lines(made)))
        show(promotion, as_json=False)
        if promotion.action == Action.WOULD_PASS:
            print(f"put it into production: pipeline promote {source.name} {made.version.version}")
    if promotion.action == Action.REFUSED:
        raise typer.Exit(EXIT_CODE_NO)


def _content(made: "Quantized") -> dict[str, object]:
    return {
        "name": made.version.name,
        "version": made.version.version,
        "from": made.source.version,
        "before": _numbers(made.before),
        "after": _numbers(made.after),
        "images": len(made.after.predictions.y),
        "flips": made.flips,
        "p_worse": made.p_worse,
    }


def _numbers(answers: "Answers") -> dict[str, float]:
    return {
        "bytes": answers.size,
        "latency_p50_ms": answers.latency.p50_ms,
        "latency_p95_ms": answers.latency.p95_ms,
        "images_per_second": answers.latency.images_per_second,
        "accuracy": float(answers.predictions.right.mean()),
    }


def _lines(made: "Quantized") -> list[str]:
    before, after = _numbers(made.before), _numbers(made.after)
    pairs = {
        "size": f"{before['bytes'] / 1e6:,.3f} MB -> {after['bytes'] / 1e6:,.3f} MB",
        "latency": f"{before['latency_p50_ms']:.3f} ms -> {after['latency_p50_ms']:.3f} ms",
        "accuracy": f"{before['accuracy']:.2%} -> {after['accuracy']:.2%}",
        "flips": f"{made.flips:,} of {len(made.after.predictions.y):,} test images get another "
        f"class; p = {made.p_worse:.3g} that it loses as many by chance",
    }
    title = f"{made.version.spec}, made from {made.source.spec}: its LiteRT file in 8 bits"
    return [title, *(f"  {name:<10}{text}" for name, text in pairs.items())]
