"""Promotion, approval, rollback and audit from the Prefect UI, over real servers and workers."""

import json
import os
import subprocess
import sys
import time

import pytest

from flows.retries import NO_HEARTBEAT
from pipeline.registry.ledger_run import ledger_of
from pipeline.registry.versions import alias_holders
from pipeline.tracking.store import connect
from tests.conftest import runner
from tests.stack.running import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

# Other tests of the stack register models of digits too: these are told apart by their seeds.
POOR = {
    "models": ["dense"],
    "seed": 4101,
    "overrides": {"dense": {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-4}}},
}
GOOD = {"models": ["cnn"], "seed": 4102, "overrides": {"cnn": {"epochs": 6}}}
BUTTONS = {"approve": True, "approved_by": "Ada", "comment": "seen"}


@pytest.fixture(scope="module")
def mlflow(workers):
    """Return a client of the stack's MLflow server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in workers.client_env.items():
            if name.startswith("MLFLOW_"):
                patch.setenv(name, value)
        yield connect()
    # MLflow writes it into the environment of the process.
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def trained(workers, parameters):
    """Train and register; return the version."""
    workers.run("train/cpu", {**parameters, "auto_promote": False}, 300)
    return alias_holders("digits")["challenger"]


@pytest.fixture(scope="module")
def versions(workers, mlflow):
    """Return a poor version, a good one, and one that differs from it by chance alone."""
    poor, good = trained(workers, POOR), trained(workers, GOOD)
    return poor, good, trained(workers, {**GOOD, "seed": 4103})


def state(workers, deployment, **parameters):
    """Run a deployment and return the name of the state that it ends with, its message, its id."""
    run_id = workers.server.start(deployment, parameters)
    done = workers.server.wait(run_id, seconds=240)
    return done["state_name"], done["state"]["message"], run_id


def last_entry():
    return ledger_of("digits").entries()[-1]


def production():
    return alias_holders("digits").get("production")


@pytest.fixture
def poor_in_production(workers, versions):
    """Put the poor version into production, by force."""
    if production() != versions[0]:
        asked = {"version": versions[0], "force": True, "reason": "to start from"}
        name, message, _ = state(workers, "promote/promote", dataset="digits", **asked)
        assert (name, production()) == ("Forced", versions[0]), message
    return versions


@pytest.mark.parametrize(
    ("deployment", "parameters", "reason"),
    [
        ("promote/promote", {"dataset": "digit"}, "'digit' is not one of"),
        ("promote/promote", {"dataset": "digits", "version": 0}, "0 is less than the minimum"),
        ("rollback/rollback", {"dataset": "digits"}, "'reason' is a required property"),
        ("rollback/rollback", {"dataset": "digits", "reason": " "}, "does not match"),
        ("audit/audit", {"dataset": "digit"}, "'digit' is not one of"),
    ],
)
def test_a_bad_value_is_refused_before_a_run_exists(workers, deployment, parameters, reason):
    answer = workers.server.request(deployment, parameters)
    assert not answer.is_success
    assert reason in answer.text


@pytest.mark.parametrize(
    ("deployment", "parameters", "reason"),
    [
        ("promote/promote", {"force": True}, "`force` and `reason` go together"),
        ("promote/promote", {"version": 9999}, "9999"),
        ("rollback/rollback", {"reason": "why", "version": 9999}, "never was in production"),
    ],
)
def test_what_only_the_command_knows_fails_with_its_reason(
    workers, poor_in_production, deployment, parameters, reason
):
    before = last_entry()
    name, message, _ = state(workers, deployment, dataset="digits", **parameters)
    assert name == "Failed"
    assert reason in message
    assert "\n" not in message
    assert last_entry() == before


def test_a_better_one_is_promoted_its_reseed_refused_and_both_are_shown(
    workers, poor_in_production
):
    poor, good, reseed = poor_in_production
    asked = {"dataset": "digits", "version": good, "who": "Ada"}
    name, message, run_id = state(workers, "promote/promote", **asked)
    assert name == "Promoted", message
    entry = last_entry()
    assert (entry.action, entry.previous, entry.version) == ("promoted", poor, good)
    assert entry.who == "Ada"
    assert entry.account == workers.client_env["MLFLOW_TRACKING_USERNAME"]
    assert production() == good
    page = workers.server.artifacts(run_id)["decision"]["data"]
    assert "| pass | better |" in page
    assert f"against version {poor}" in page
    tasks = workers.server.tasks(run_id)
    assert {"ingest", "validate", "preprocess", "pipeline promote"} <= set(tasks)

    name, message, run_id = state(workers, "promote/promote", **{**asked, "version": reseed})
    assert name == "Refused", message
    assert workers.server.flow_run(run_id)["state_type"] == "COMPLETED"
    assert "| **FAIL** | not_a_reseed |" in workers.server.artifacts(run_id)["decision"]["data"]
    entry = last_entry()
    assert (entry.action, entry.version) == ("refused", reseed)
    assert production() == good

    name, message, _ = state(workers, "promote/promote", **asked)
    assert (name, last_entry()) == ("Nothing", entry), message
    assert workers.worktrees == []


def test_rollback_returns_to_the_one_before(workers, poor_in_production):
    poor, good, _ = poor_in_production
    if production() == poor:
        state(workers, "promote/promote", dataset="digits", version=good)
    asked = {"dataset": "digits", "reason": "confuses 3 and 8", "who": "Ada"}
    name, message, _ = state(workers, "rollback/rollback", **asked)
    assert name == "Rolled back", message
    entry = last_entry()
    assert (entry.action, entry.previous, entry.version) == ("rolled back", good, poor)
    assert (entry.who, entry.reason) == ("Ada", "confuses 3 and 8")
    assert production() == poor
    assert workers.worktrees == []


# A person has to agree.


@pytest.fixture
def approval(workers):
    """Let the repository say that a person has to agree."""
    path = workers.source / "params.yaml"
    git = runner(workers.source)
    asked = "require_approval: true "
    path.write_text(path.read_text().replace("require_approval: false", asked))
    assert asked in path.read_text()
    git("git", "commit", "-qam", "a person has to agree")
    yield
    git("git", "revert", "--no-edit", "HEAD")


def paused(workers, version):
    """Ask for a promotion, and return its run once it waits for a person."""
    asked = {"dataset": "digits", "version": version, "who": "Bob"}
    run_id = workers.server.start("promote/promote", asked)
    workers.server.wait(run_id, {"PAUSED", "COMPLETED", "FAILED"}, 240)
    assert workers.server.flow_run(run_id)["state_name"] == "Paused"
    return run_id


def resume(workers, run_id, values):
    return workers.server.read("POST", f"/flow_runs/{run_id}/resume", {"run_input": values})


def test_a_run_waits_for_a_person_longer_than_the_silence_of_a_dead_one(
    workers, poor_in_production, approval
):
    _, good, _ = poor_in_production
    before = last_entry()
    run_id = paused(workers, good)
    since = time.monotonic()
    assert "to-approve" in workers.server.artifacts(run_id)
    keys = workers.server.flow_run(run_id)["state"]["state_details"]["run_input_keyset"]
    form = until(
        lambda: workers.server.ask("GET", f"/flow_runs/{run_id}/input/{keys['schema']}"), 10, "form"
    ).json()
    form = json.loads(form) if isinstance(form, str) else form
    assert set(form["required"]) == {"approve", "approved_by"}
    assert form["properties"]["approve"]["type"] == "boolean"
    for values in ({}, {"approve": True}, {"approve": True, "approved_by": " "}):
        assert resume(workers, run_id, values)["status"] == "REJECT"
    until(
        lambda: time.monotonic() - since > NO_HEARTBEAT.total_seconds() + 45,
        180,
        "the silence is over",
    )
    assert workers.server.flow_run(run_id)["state_name"] == "Paused"
    assert last_entry() == before

    assert resume(workers, run_id, BUTTONS)["status"] == "ACCEPT"
    done = workers.server.wait(run_id, seconds=240)
    assert done["state_name"] == "Promoted", done["state"]
    entry = last_entry()
    assert (entry.action, entry.version) == ("promoted", good)
    assert entry.who == "Bob; approved by Ada"
    assert workers.worktrees == []


def test_who_does_not_agree_or_cancels_changes_nothing(workers, poor_in_production, approval):
    _, good, _ = poor_in_production
    before = last_entry()
    run_id = paused(workers, good)
    resume(workers, run_id, {"approve": False, "approved_by": "Ada", "comment": "not today"})
    done = workers.server.wait(run_id, seconds=60)
    assert (done["state_name"], done["state_type"]) == ("Not approved", "COMPLETED")
    assert done["state"]["message"] == "not approved by Ada: not today"
    assert last_entry() == before

    run_id = paused(workers, good)
    workers.server.change(run_id, "CANCELLING")
    workers.server.wait(run_id, {"CANCELLED"}, 60)
    until(lambda: workers.worktrees == [], 30, "the worktree is gone")
    assert last_entry() == before


def test_without_an_answer_it_is_a_no(workers):
    """In a process of its own, which waits for seconds rather than a day."""
    code = """
from flows import promote
from pipeline.production.decision import PromotionReport
from prefect import flow
from prefect.states import Completed
promote.SECONDS_TO_AGREE = 12
@flow(name="waits")
def waits():
    asked = PromotionReport(name="digits", version=1, action="would pass", sequence=None,
                            decision=None)
    answer = promote.ask_a_person(asked, "Bob")
    return Completed(name="No" if not answer.approve else "Yes", message=answer.comment)
state = waits(return_state=True)
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    run = client.read_flow_run(state.state_details.flow_run_id)
print(run.state.type.value, run.state.name, run.state.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=workers.client_env,
        cwd=workers.source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["COMPLETED No nobody answered in time"], done.stderr


# The audit.


def test_an_alias_that_was_moved_by_hand_is_found_and_put_back(workers, mlflow, poor_in_production):
    poor, good, _ = poor_in_production
    name, message, _ = state(workers, "audit/audit", dataset="digits")
    assert name == "Completed", message
    mlflow.set_registered_model_alias("digits", "production", str(good))
    name, message, run_id = state(workers, "audit/audit")
    assert name == "Findings"
    assert workers.server.flow_run(run_id)["state_type"] == "FAILED"
    assert f"digits@production is version {good}; the ledger says version {poor}" in message
    assert "**left**" in workers.server.artifacts(run_id)["audit"]["data"]
    assert production() == good, "looking changes nothing"

    name, message, run_id = state(workers, "audit/audit", restore=True, who="Ada")
    assert name == "Restored", message
    assert "put back" in workers.server.artifacts(run_id)["audit"]["data"]
    assert production() == poor
    assert (last_entry().action, last_entry().who) == ("restored", "Ada")
    assert state(workers, "audit/audit")[0] == "Completed"


def test_the_audit_runs_every_hour_and_a_schedule_that_is_off_stays_off(workers):
    def schedule():
        made = workers.server.read("GET", "/deployments/name/audit/audit")
        return made, made["schedules"][0]

    deployment, before = schedule()
    assert before["active"]
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    path = f"/deployments/{deployment['id']}/schedules/{before['id']}"
    assert workers.server.ask("PATCH", path, {"active": False}).is_success
    workers.deploy()
    deployment, after = schedule()
    assert not after["active"]
    path = f"/deployments/{deployment['id']}/schedules/{after['id']}"
    assert workers.server.ask("PATCH", path, {"active": True}).is_success
