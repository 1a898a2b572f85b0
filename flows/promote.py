"""The flow `promote`: ask the gate about a version, and a person where one has to agree."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Running
from pydantic import Field

from flows.execution.chain import run_until
from flows.execution.checkout import Checkout, overlooked, worktree
from flows.execution.commands import change, look, requester
from flows.form import Dataset, Person, SomePerson, Text, Version
from flows.pages import view
from flows.request import Request
from flows.retries import FLOWS
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import ParamsError
from pipeline.params.params import load_params
from pipeline.reports.markdown import Markdown, escape, row

SECONDS_TO_AGREE = int(FLOWS["promote"].wait.total_seconds())
SAID = {
    "promoted": "is in production",
    "forced": "is in production, against the gate",
    "refused": "is refused; production stays as it is",
    "would pass": "passes the gate",
    "nothing": "is in production already",
}
NOT_APPROVED = "Not approved"


class Approval(RunInput):
    """The form that a person fills in who has to agree."""

    approve: bool = Field(description="Yes: it goes into production. No: nothing changes.")
    approved_by: SomePerson = Field(description="Your name; the ledger keeps it.")
    comment: Text = Field("", description="What the others should know; this run shows it.")


def run_name() -> str:
    """Return the name of a run in the UI."""
    asked = flow_run.parameters
    return f"{asked['dataset']}: {asked.get('version') or 'challenger'}"


@flow(name="promote", flow_run_name=run_name, persist_result=False)
def promote(
    dataset: Dataset,
    version: Version | None = None,
    force: bool = False,
    reason: Text = "",
    requested_by: Person = "",
) -> State[Any]:
    """Put a version into production, if it passes the gate and nobody objects.

    It is scored now, beside the version in production, on the same test split. Where
    promotion.require_approval is true, the run waits for a person for a day.

    Args:
        dataset: Whose model; the registered model has the same name.
        version: Of the registered model; empty takes the challenger.
        force: Against the gate; needs a reason, and is recorded as forced.
        reason: Why it is forced.
        requested_by: Your name; the ledger keeps it as what you say, with the worker's account.
    """
    if bool(reason.strip()) != force:
        raise ParamsError(
            "`force` and `reason` go together: a promotion that is forced needs a reason, one that "
            "passes the gate gives its own"
        )
    with worktree("HEAD", str(flow_run.id)) as checkout:
        if text := overlooked(checkout):
            get_run_logger().warning(text)
        job = run_until(checkout, data_of(dataset, checkout), "preprocess")
        options = ["--force", f"--reason={reason}"] if force else []
        who = requester(requested_by)
        if job.params.promotion.require_approval:
            asked = look(checkout, "promote", "--dry-run", *options, *_named(dataset, version))
            if asked["action"] == "would pass" or (force and asked["action"] == "refused"):
                approval = ask_a_person(asked, who)
                if not approval.approve:
                    return Completed(name=NOT_APPROVED, message=_in_words(approval))
                who = f"{who}; approved by {approval.approved_by.strip()}"
                # What was approved is this one, whoever is the challenger by now.
                version, options = asked["version"], [*options, "--yes"]
        done = change(checkout, "promote", *options, f"--by={who}", *_named(dataset, version))
    show(done, "decision")
    message = f"{done['name']} version {done['version']} {SAID[done['action']]}"
    return Completed(name=done["action"].capitalize(), message=message)


def data_of(dataset: str, checkout: Checkout) -> Request:
    """Ask for a dataset, whatever params.yaml would train; a GPU is not needed for its images."""
    params = load_params(checkout.root / PARAMS_FILE)
    recipes = params.recipes_for(dataset)
    models = tuple(name for name in params.models if name in recipes) or tuple(recipes)
    return Request(dataset=dataset, models=models, device="auto")


def _named(dataset: str, version: int | None) -> list[str]:
    return ["--", dataset, *([] if version is None else [str(version)])]


def ask_a_person(asked: dict[str, Any], who: str) -> Approval:
    """Pause the run until somebody has filled the form in; without an answer it is a no.

    Args:
        asked: what `pipeline promote --dry-run --json` prints.
        who: wants the promotion.
    """
    text = f"{show(asked, 'to-approve')}\n\nAsked for by {escape(who)}; nothing proves the name."
    form = Approval.with_initial_data(description=text)
    try:
        answer: Approval = pause_flow_run(wait_for_input=form, timeout=SECONDS_TO_AGREE)
    except FlowPauseTimeout:
        # The server fails a run that nobody resumed, unless it is told that this one goes on.
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Running(), force=True)
        return Approval(approve=False, approved_by="nobody", comment="nobody answered in time")
    get_run_logger().info(_in_words(answer))
    return answer


def _in_words(answer: Approval) -> str:
    text = "approved" if answer.approve else "not approved"
    comment = f": {answer.comment.strip()}" if answer.comment.strip() else ""
    return f"{text} by {answer.approved_by.strip()}{comment}"


def show(answer: dict[str, Any], key: str) -> str:
    """Show a decision in the UI, and return the page.

    Args:
        answer: what `pipeline promote --json` prints.
        key: of the artifact.
    """
    text = page(answer)
    title = f"What the gate says of {answer['name']} version {answer['version']}."
    view.show_page(key, [text], title)
    return text


def page(answer: dict[str, Any]) -> str:
    """Return a decision as Markdown: what did not pass in words, then every check."""
    name, version = answer["name"], answer["version"]
    linked = view.mlflow_link(f"{name} version {version}", f"models/{name}/versions/{version}")
    lines = [f"{linked} **{SAID[answer['action']]}**.", ""]
    if decision := answer["decision"]:
        failed = [check for check in decision["checks"] if not check["passed"]]
        lines += [
            *(f"- {escape(check['message'])}" for check in failed),
            *(["", "| | check | value | limit |", "|---|---|---|---|"]),
            *(_row(check) for check in decision["checks"]),
            "",
            _against(decision),
        ]
    return "\n".join(lines)


def _against(decision: dict[str, Any]) -> str:
    old = decision["incumbent"]
    held = f"against version {old}, which is in production" if old else "nothing is in production"
    return f"Scored on the test split {escape(decision['test_md5'])}, {held}."


def _row(check: dict[str, Any]) -> str:
    mark = "pass" if check["passed"] else Markdown("**FAIL**")
    return row(mark, check["name"], _short(check["value"]), _short(check["limit"]))


def _short(value: float | str) -> str:
    # A md5 is recognised by its first letters.
    return value[:12] if isinstance(value, str) else f"{value:.4g}"
