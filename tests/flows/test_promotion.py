"""The flows that change production: their forms, what they show, and the commands below them."""

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt
from prefect._internal.pydantic.v2_schema import create_v2_schema
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows import audit, promote, rollback
from flows.execution.checkout import Checkout
from flows.execution.commands import change
from flows.execution.stages import StageFailed
from pipeline.errors import ParamsError
from pipeline.production.decision import PromotionReport
from pipeline.production.recording import LONGEST_REASON
from pipeline.registry.ledger import Discrepancy
from tests.conftest import ROOT

CHECKS = [
    {"name": "accuracy", "value": 0.98, "limit": 0.4, "passed": True, "message": "accuracy 0.9800"},
    {
        "name": "classes",
        "value": 0.07,
        "limit": 0.05,
        "passed": False,
        "message": "recall: a|b <script> loses 0.0700 of 0.05 allowed",
    },
    {
        "name": "test_set",
        "value": "0123456789abcdef0123",
        "limit": "0123456789abcdef0123",
        "passed": True,
        "message": "evaluated on this test split",
    },
]
DECISION = {"candidate": 7, "incumbent": 3, "test_md5": "0123", "checks": CHECKS, "passed": False}
PRINTED = {"name": "digits", "version": 7, "action": "refused", "sequence": 9, "decision": DECISION}
REFUSED = PromotionReport.model_validate(PRINTED)


def schema_of(flow):
    return json.loads(json.dumps(parameter_schema(flow).model_dump_for_openapi()))


def refused(schema, values):
    with pytest.raises(ValidationError):
        validate(values, schema, raise_on_error=True)


@pytest.mark.parametrize("flow", [promote.promote, rollback.rollback, audit.audit])
def test_every_parameter_has_a_description(flow):
    for name, field in schema_of(flow)["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dataset": "digit"},
        {"dataset": "digits", "version": 0},
        {"dataset": "digits", "version": "newest"},
        {"dataset": "digits", "force": "perhaps"},
        {"dataset": "digits", "reason": "x" * 501},
        {"dataset": "digits", "who": "x" * 101},
    ],
)
def test_what_the_form_of_a_promotion_refuses(values):
    refused(schema_of(promote.promote), values)


@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "digits"},
        {"dataset": "digits", "reason": ""},
        {"dataset": "digits", "reason": " \n"},
        {"dataset": "digits", "reason": "x" * 501},
        {"dataset": "digits", "reason": "why", "version": 0},
        {"reason": "why"},
    ],
)
def test_what_the_form_of_a_rollback_refuses(values):
    refused(schema_of(rollback.rollback), values)


def test_what_the_forms_take():
    good: dict[Any, dict[str, Any]] = {
        promote.promote: {"dataset": "digits", "version": None, "who": "Ada"},
        rollback.rollback: {"dataset": "digits", "reason": "why", "version": 2},
        audit.audit: {"dataset": None, "restore": True},
    }
    for flow, values in good.items():
        validate(values, schema_of(flow), raise_on_error=True)
        flow.validate_parameters(values)
    refused(schema_of(audit.audit), {"dataset": "digit"})


def test_a_reason_is_as_long_as_the_ledger_takes():
    for flow in (promote.promote, rollback.rollback):
        assert schema_of(flow)["properties"]["reason"]["maxLength"] == LONGEST_REASON


@pytest.mark.parametrize(
    ("force", "reason"), [(True, ""), (True, "  "), (False, "because I say so")]
)
def test_force_and_reason_go_together(force, reason):
    with pytest.raises(ParamsError, match="go together"):
        promote.promote.fn("digits", force=force, reason=reason)


def test_a_person_who_approves_gives_a_name_and_an_answer():
    form = promote.Approval.with_initial_data(description="a page")
    schema = create_v2_schema(form.__name__, model_base=form)
    validate({"approve": True, "approved_by": "Ada"}, schema, raise_on_error=True)
    for values in (
        {},
        {"approve": True},
        {"approve": True, "approved_by": " "},
        {"approved_by": "Ada"},
        {"approve": "perhaps", "approved_by": "Ada"},
        {"approve": True, "approved_by": "Ada", "comment": "x" * 501},
        {"approve": True, "approved_by": "Ada", "more": 1},
    ):
        refused(schema, values)


def test_a_decision_is_shown_with_what_failed_first(monkeypatch):
    monkeypatch.setenv("MLFLOW_UI_URL", "http://mlflow.example")
    page = promote.page(REFUSED)
    lines = page.splitlines()
    assert lines[0].startswith("[digits version 7](http://mlflow.example/#/models/digits/versions/")
    assert "is refused" in lines[0]
    assert "| pass | accuracy | 0.98 | 0.4 |" in lines
    assert "| **FAIL** | classes | 0.07 | 0.05 |" in lines
    assert "| pass | test_set | 0123456789ab | 0123456789ab |" in lines
    assert "against version 3" in lines[-1]
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<script>" not in html
    assert html.count("<tr>") == 4
    assert "<li>recall: a|b &lt;script&gt; loses 0.0700" in html


def test_a_decision_that_was_not_taken_is_one_line(monkeypatch):
    monkeypatch.delenv("MLFLOW_UI_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nothing = PromotionReport.model_validate({**PRINTED, "action": "nothing", "decision": None})
    assert promote.page(nothing).strip() == "digits version 7 **is in production already**."
    first = PromotionReport.model_validate({**PRINTED, "decision": {**DECISION, "incumbent": None}})
    assert "nothing is in production" in promote.page(first)


def test_findings_are_shown_as_a_table():
    moved = Discrepancy(name="digits", alias="production", holder=7, ledger=3, message="a|b")
    gone = moved.model_copy(update={"alias": "previous", "holder": None, "ledger": 2})
    html = MarkdownIt("commonmark").enable("table").render(audit.page([moved, gone], [gone]))
    assert html.count("<tr>") == 3
    assert "<strong>left</strong>" in html
    assert "<td>none</td>" in html
    assert "<td>put back</td>" in html


def test_the_images_of_a_dataset_are_made_whatever_else_params_would_train(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("dataset: digits ", "dataset: mnist ").replace("cnn]", "fast]"))
    checkout = Checkout(tmp_path, tmp_path, "")
    request = promote.data_of("digits", checkout)
    assert request.models == ("dense",)
    assert request.apply(path).dataset == "digits"
    path.write_text(text.replace("[dense, cnn]", "[fast]"))
    request = promote.data_of("digits", checkout)
    assert request.models == ("dense", "cnn")
    assert request.apply(path).device == "auto"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return an empty folder with a store of its own, in which this working tree's code runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Checkout(tmp_path, tmp_path, "0" * 40)


def test_a_command_is_asked_for_its_answer(checkout):
    assert change.fn(checkout, "audit", "--who=Ada", "--") == {"findings": [], "restored": []}


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("audit", ["--", "digits"], "digits"),
        ("promotion", [], "No such command 'promotion'"),
        ("audit", ["--help"], "pipeline audit of 0000000000 prints no JSON"),
    ],
)
def test_a_command_that_fails_gives_its_reason_in_one_line(checkout, name, options, reason):
    with pytest.raises(StageFailed) as failure:
        change.fn(checkout, name, *options)
    assert reason in str(failure.value)
    assert "\n" not in str(failure.value)
