"""The flow `audit`: compare the registry with the ledger, every hour."""

from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.execution.checkout import worktree
from flows.execution.commands import change, look, requester
from flows.forms.form import Dataset, Person
from flows.pages import view
from pipeline.registry.ledger import Discrepancy
from pipeline.reports.markdown import Markdown, row


def run_name() -> str:
    """Return the name of a run in the UI."""
    return str(flow_run.parameters.get("dataset") or "all models")


@flow(name="audit", flow_run_name=run_name, persist_result=False)
def audit(dataset: Dataset | None = None, restore: bool = False, who: Person = "") -> State[Any]:
    """Compare aliases and files in the registry with the ledger; what differs fails the run.

    Args:
        dataset: Whose model; empty takes every registered model.
        restore: Put aliases back that somebody has moved by hand.
        who: Your name; where an alias is put back, the ledger stores it as not proven.
    """
    options = [*(["--restore"] if restore else []), f"--who={requester(who)}"]
    run = change if restore else look
    with worktree("HEAD", str(flow_run.id)) as checkout:
        answer = run(checkout, "audit", *options, "--", *([dataset] if dataset else []))
    found, restored = (
        [Discrepancy.model_validate(row) for row in answer[key]] for key in ("findings", "restored")
    )
    if not found:
        return Completed(message="every alias and every file is what the ledger says")
    view.show_page("audit", [page(found, restored)], "What the ledger does not account for.")
    if left := [row.message for row in found if row not in restored]:
        return Failed(name="Findings", message="; ".join(left))
    return Completed(name="Restored", message="; ".join(row.message for row in restored))


def page(found: Sequence[Discrepancy], restored: Sequence[Discrepancy]) -> str:
    """Return what was found, and what of it was put back, as a table in Markdown."""
    lines = ["| model | alias | registry | ledger | | |", "|---|---|---|---|---|---|"]
    for one in found:
        cells = [
            view.mlflow_link(one.name, f"models/{one.name}"),
            one.alias,
            one.holder or "none",
            one.ledger or "none",
            "put back" if one in restored else Markdown("**left**"),
            one.message,
        ]
        lines.append(row(*cells))
    return "\n".join(lines)
