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
from flows.forms.form import Dataset, Person, SomePerson, Text, Version
from flows.forms.request import Request
from flows.pages import view
from flows.retries import FLOWS
from pipeline.artifacts.project import PARAMS_FILE
from pipeline.errors import ParamsError
from pipeline.params.params import load_params
from pipeline.production.decision import Answer, Decision, PromotionReport
from pipeline.registry.ledger import Action
from pipeline.reports.markdown import Markdown, escape, row

SECONDS_TO_AGREE = int(FLOWS["promote"].wait.total_seconds())
NOT_APPROVED = "Not approved"


class Approval(RunInput):
    """The form for the person who has to agree."""

    approve: bool = Field(description="Yes: it goes into production. No: nothing changes.")
    approved_by: SomePerson = Field(description="Your name; the ledger stores it.")
    comment: Text = Field("", description="What the others should know; this run shows it.")


def run_name() -> str:
    """Return the name of a run in the UI."""
    given = flow_run.parameters
    return f"{given['dataset']}: {given.get('version') or 'challenger'}"


@flow(name="promote", flow_run_name=run_name, persist_result=False)
def promote(
    dataset: Dataset,
    version: Version | None = None,
    force: bool = False,
    reason: Text = "",
    who: Person = "",
) -> State[Any]:
    """Put a version into production, if it passes the gate and nobody objects.

    It is scored now, with the version in production, on the same test split. Where
    promotion.require_approval is true, the run waits up to a day for a person to agree.

    Args:
        dataset: Whose model; the registered model has the same name.
        version: Of the registered model; empty takes the challenger.
        force: Against the gate; needs a reason, and is recorded as forced.
        reason: Why it is forced.
        who: Your name; the ledger stores it as not proven, with the worker's account.
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
        who = requester(who)
        if job.params.promotion.require_approval:
            asked = PromotionReport.model_validate(
                look(checkout, "promote", "--dry-run", *options, *_named(dataset, version))
            )
            if asked.action == Action.WOULD_PASS or (force and asked.action == Action.REFUSED):
                approval = ask_a_person(asked, who)
                if not approval.approve:
                    return Completed(name=NOT_APPROVED, message=_in_words(approval))
                who = f"{who}; approved by {approval.approved_by.strip()}"
                # This version was approved, even if another one is the challenger by now.
                version, options = asked.version, [*options, "--yes"]
        done = PromotionReport.model_validate(
            change(checkout, "promote", *options, f"--who={who}", *_named(dataset, version))
        )
    show(done, "decision")
    message = done.action.sentence(done.name, done.version)
    return Completed(name=done.action.capitalize(), message=message)


def data_of(dataset: str, checkout: Checkout) -> Request:
    """Request a dataset, whatever params.yaml would train; its images need no GPU."""
    params = load_params(checkout.root / PARAMS_FILE)
    recipes = params.recipes_for(dataset)
    models = tuple(name for name in params.models if name in recipes) or tuple(recipes)
    return Request(dataset=dataset, models=models, device="auto")


def _named(dataset: str, version: int | None) -> list[str]:
    return ["--", dataset, *([] if version is None else [str(version)])]


def ask_a_person(asked: PromotionReport, who: str) -> Approval:
    """Pause the run until somebody has filled in the form; without an answer it is a no.

    Args:
        asked: what the gate says of a dry run.
        who: asks for the promotion.
    """
    text = f"{show(asked, 'to-approve')}\n\nAsked for by {escape(who)} (not proven)."
    form = Approval.with_initial_data(description=text)
    try:
        answer: Approval = pause_flow_run(wait_for_input=form, timeout=SECONDS_TO_AGREE)
    except FlowPauseTimeout:
        # The server fails a run that nobody resumed; this one goes on.
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Running(), force=True)
        return Approval(approve=False, approved_by="nobody", comment="nobody answered in time")
    get_run_logger().info(_in_words(answer))
    return answer


def _in_words(answer: Approval) -> str:
    text = "approved" if answer.approve else "not approved"
    comment = f": {answer.comment.strip()}" if answer.comment.strip() else ""
    return f"{text} by {answer.approved_by.strip()}{comment}"


def show(promotion: PromotionReport, key: str) -> str:
    """Show a decision in the UI, and return the page.

    Args:
        promotion: what came of it.
        key: the name of the artifact.
    """
    text = page(promotion)
    title = f"The gate's decision about {promotion.name} version {promotion.version}."
    view.show_page(key, [text], title)
    return text


def page(promotion: PromotionReport) -> str:
    """Return a decision as Markdown: what failed, what every rule answered, what it rests on."""
    name, version = promotion.name, promotion.version
    linked = view.mlflow_link(f"{name} version {version}", f"models/{name}/versions/{version}")
    lines = [f"{linked} **{promotion.action.words}**.", ""]
    if decision := promotion.decision:
        lines += [
            *(f"- {escape(message)}" for message in decision.failures),
            *(["", "| | rule | value | limit |", "|---|---|---|---|"]),
            *(_row(answer) for answer in decision.answers),
            "",
            *(f"- {escape(message)}" for message in decision.notes),
            "",
            _against(decision),
        ]
    return "\n".join(lines)


def _against(decision: Decision) -> str:
    old = decision.incumbent
    against = (
        f"against version {old}, which is in production" if old else "nothing is in production"
    )
    return f"The test split here is {escape(decision.test_md5)}; {against}."


def _row(answer: Answer) -> str:
    mark = "pass" if answer.passed else Markdown("**FAIL**")
    return row(mark, answer.name, _short(answer.value), _short(answer.limit))


def _short(value: float | str) -> str:
    # The start of an md5 is enough to recognise it.
    return value[:12] if isinstance(value, str) else f"{value:.4g}"
