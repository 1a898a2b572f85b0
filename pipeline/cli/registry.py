"""Commands on the registry: which version serves, since when and why, and how to change it."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.app import app, choose_tensorflow, params_here, print_json
from pipeline.errors import EXIT_CODE_NO, ParamsError
from pipeline.registry.ledger import Action

if TYPE_CHECKING:
    from pipeline.production.promote import Promotion

REGISTRY = "Registry"
Name = Annotated[str, typer.Argument(metavar="DATASET", help="The registered model's name.")]
Who = Annotated[
    str,
    typer.Option(
        help="Who asks; by default the user and the machine. Your MLflow account is added."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


@app.command(rich_help_panel=REGISTRY)
def promote(
    dataset: Name,
    version: Annotated[int | None, typer.Argument(help="By default the challenger.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Against the gate; needs --reason, and is recorded.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why it is forced.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and change nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree, where promotion.require_approval asks a person.")
    ] = False,
    who: Who = "",
    as_json: AsJson = False,
) -> None:
    """Put a version into production, if it passes the gate.

    Exit code 3 where it does not: production stays as it is.
    """
    if force and not reason.strip():
        raise ParamsError("--force needs a reason, which is recorded: --reason TEXT")
    if reason and not force:
        raise ParamsError("--reason goes with --force: a promotion that passes gives its own")
    choose_tensorflow()
    from pipeline.artifacts import project
    from pipeline.production.forget import flagged
    from pipeline.production.promote import promote
    from pipeline.registry import versions
    from pipeline.reports import card
    from pipeline.workspace import Workspace

    thresholds = params_here().promotion
    spec = f"{dataset}@{versions.CHALLENGER}" if version is None else f"{dataset}/{version}"
    found, splits = versions.find(spec), Workspace(dataset, project.root()).splits
    found = flagged(found, card.describe, project.root(), dry_run)
    if thresholds.require_approval and not yes and not dry_run:
        asked = promote(found, splits, thresholds, force=reason, dry_run=True)
        if asked.action == Action.WOULD_PASS or force:
            _approve(asked)
    promotion = promote(found, splits, thresholds, force=reason, dry_run=dry_run, who=who)
    show(promotion, as_json)
    if promotion.action == Action.REFUSED:
        raise typer.Exit(EXIT_CODE_NO)


def _approve(promotion: "Promotion") -> None:
    """Let a person agree, as promotion.require_approval wants it.

    Raises:
        ParamsError: nobody is there to ask.
    """
    if not sys.stdin.isatty():
        raise ParamsError(
            f"promotion.require_approval is true: {promotion.version.spec} waits for a person; "
            "look at it with --dry-run and agree with --yes, or run the flow `promote`"
        )
    show(promotion, as_json=False)
    typer.confirm(f"Put {promotion.version.spec} into production?", abort=True)


@app.command(rich_help_panel=REGISTRY)
def rollback(
    dataset: Name,
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    to: Annotated[
        int | None, typer.Option(help="A version that once was in production; else the one before.")
    ] = None,
    who: Who = "",
    as_json: AsJson = False,
) -> None:
    """Return to the version that was in production before, once it has shown that it works."""
    choose_tensorflow()
    from pipeline.production.promote import rollback

    entry = rollback(dataset, to, reason, who)
    if as_json:
        print_json(
            {
                "name": dataset,
                "from": entry.previous,
                "to": entry.version,
                "sequence": entry.sequence,
                "who": entry.who,
                "account": entry.account,
                "reason": entry.reason,
            }
        )
    else:
        print(entry.action.sentence(dataset, entry.version, entry.previous))


@app.command(rich_help_panel=REGISTRY)
def history(
    dataset: Name,
    on: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
            help="Which version was in production then: a moment in UTC, or the end of a day.",
        ),
    ] = None,
    entry: Annotated[int | None, typer.Option(help="Show one entry with its decision.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who moved production, when, from what to what, and why."""
    from pipeline.cli import ledger_view

    ledger_view.show(dataset, on, entry, as_json)


@app.command(rich_help_panel=REGISTRY)
def audit(
    dataset: Annotated[
        str | None, typer.Argument(help="The registered model's name; by default all.")
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put aliases back that were moved by hand.")
    ] = False,
    who: Who = "",
    as_json: AsJson = False,
) -> None:
    """Compare aliases and files in the registry with the ledger; exit code 3 where they differ."""
    from pipeline.production.audit import audit

    found = audit([dataset] if dataset else [], restore, who)
    moved = [row for row in found if restore and row.holder != row.ledger]
    left = [row for row in found if row not in moved]
    if as_json:
        rows = {"findings": found, "restored": moved}
        print_json({key: [row.model_dump() for row in value] for key, value in rows.items()})
    else:
        for row in found:
            print(f"{row.message}{'; put back' if row in moved else ''}")
        if not found:
            print("every alias is where the ledger says, and every file is what was registered")
    if left:
        raise typer.Exit(EXIT_CODE_NO)


def promotion_content(promotion: "Promotion") -> dict[str, Any]:
    """Return what `--json` prints of a promotion."""
    decision, entry = promotion.decision, promotion.entry
    content = None
    if decision is not None:
        content = {**decision.model_dump(mode="json"), "passed": decision.passed}
    return {
        "name": promotion.version.name,
        "version": promotion.version.version,
        "action": promotion.action,
        "sequence": entry.sequence if entry else None,
        "decision": content,
    }


def show(promotion: "Promotion", as_json: bool) -> None:
    """Print what came of asking for a promotion."""
    from pipeline.cli.ledger_view import render_decision

    if as_json:
        print_json(promotion_content(promotion))
        return
    from rich.console import Console

    console = Console()
    if promotion.decision is not None:
        console.print(render_decision(promotion.decision))
    console.print(promotion.sentence, highlight=False)
