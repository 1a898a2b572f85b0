"""The flow `rollback`: return to a version that was in production before."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.execution.checkout import worktree
from flows.execution.commands import change, requester
from flows.forms.form import Dataset, Person, SomeText, Version
from pipeline.registry.ledger import Action


@flow(name="rollback", flow_run_name="{dataset}", persist_result=False)
def rollback(
    dataset: Dataset, reason: SomeText, version: Version | None = None, who: Person = ""
) -> State[Any]:
    """Return to the version that was in production before, once it has shown that it works.

    Args:
        dataset: Whose model; the registered model has the same name.
        reason: Why; the ledger stores it.
        version: One that once was in production; empty takes the one before the present one.
        who: Your name; the ledger stores it as not proven, with the worker's account.
    """
    target = [] if version is None else [f"--to={version}"]
    options = [f"--reason={reason}", f"--who={requester(who)}", *target]
    with worktree("HEAD", str(flow_run.id)) as checkout:
        done = change(checkout, "rollback", *options, "--", dataset)
    message = Action.ROLLED_BACK.sentence(dataset, done["to"], done["from"])
    return Completed(name=Action.ROLLED_BACK.capitalize(), message=message)
