"""Grids and searches over a real server and real workers: spread, killed, resumed, pruned."""

import json
import os
import signal
import subprocess

import psutil
import pytest

from pipeline.params.params import load_params
from pipeline.tracking.groups import Groups
from tests.stack.running import until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

# Trainings that are long enough to be watched; the last rate learns nothing.
SPACE = """
search:
  digits:
    cnn:
      optimizer.learning_rate: {choices: [0.001, 0.002, 0.0000001]}
      epochs: {low: 14, high: 16}
"""


@pytest.fixture
def groups(workers, monkeypatch):
    """Return the stack's MLflow store."""
    for name, value in workers.client_env.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    yield Groups()
    # MLflow writes it into the environment of the process.
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def revision(workers):
    """Return a branch whose params.yaml has a space with trials that deserve to be pruned."""
    path = workers.source / "params.yaml"
    shipped = path.read_text()

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=workers.source, check=True)

    git("checkout", "-qb", "tuning")
    path.write_text(shipped[: shipped.index("\nsearch:")] + SPACE)
    git("commit", "-qam", "a space to search")
    git("checkout", "-q", "-")
    return "tuning"


def children(workers, flow_run_id):
    body = {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run_id]}}}
    return workers.server.read("POST", "/flow_runs/filter", body)


def process_of(flow_run_id):
    """Return the process in which a flow run is."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run_id:
                return process
        except psutil.Error:
            continue
    return None


def parent_of(groups, experiment, flow_run_id):
    (parent,) = groups.parents(experiment, "flow_run_id", flow_run_id)
    return parent.run_id


def record(groups, flow_run_id):
    """Return the trials that a search has written down."""
    found = groups.parents("tuning", "flow_run_id", flow_run_id)
    text = groups.text(found[0].run_id, "trials.json") if found else None
    return json.loads(text)["trials"] if text else []


def test_a_grid_ends_in_one_table_and_one_parent_run(workers, groups):
    asked = {
        "datasets": ["digits"],
        "models": ["dense", "fast"],
        "seeds": [0, 1],
        "overrides": {"dense": {"epochs": 2}},
        "cost_per_hour": 3.6,
    }
    run_id = workers.run("grid/grid", asked, 400)
    shown = workers.server.artifacts(run_id)
    assert {"grid-table", "grid-picture", "grid"} <= set(shown)
    page = shown["grid-table"]["data"]
    assert "| dense | 2 |" in page
    assert "skipped: digits has no fast" in page
    assert len(children(workers, run_id)) == 2
    parent = groups.client.get_run(parent_of(groups, "grids", run_id))
    assert parent.info.status == "FINISHED"
    metrics = parent.data.metrics
    assert metrics["digits.dense.accuracy_mean"] > 0.5
    assert metrics["digits.dense.accuracy_sd"] >= 0
    assert metrics["digits.dense.cost_mean"] == pytest.approx(
        metrics["digits.dense.training_seconds_mean"] / 1000, rel=1e-3
    )
    assert "run_ids" in groups.text(parent.info.run_id, "grid.csv")
    for child in children(workers, run_id):
        trained = groups.run_of("digits", child["id"])
        tags = groups.client.get_run(trained).data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_grid_names_what_failed_after_the_table(workers):
    # A window of 20 pixels does not fit into images of 8.
    asked = {
        "models": ["dense", "cnn"],
        "seeds": [5],
        "overrides": {
            "dense": {"epochs": 2},
            "cnn": {"layers": [{"conv": 4, "kernel_size": 20, "padding": "valid"}, "flatten"]},
        },
    }
    run_id = workers.server.start("grid/grid", asked)
    done = workers.server.wait(run_id, seconds=400)
    assert done["state_type"] == "FAILED"
    assert "1 of 2 have no result: digits cnn seed 5: Failed: " in done["state"]["message"]
    page = workers.server.artifacts(run_id)["grid-table"]["data"]
    assert "| dense | 1 |" in page
    assert "- digits cnn seed 5: Failed: " in page


def test_who_cancels_a_grid_cancels_its_trainings(workers):
    asked = {"models": ["cnn"], "seeds": [6, 7, 8, 9], "overrides": {"cnn": {"epochs": 500}}}
    run_id = workers.server.start("grid/grid", asked)
    until(lambda: len(children(workers, run_id)) == 4, 120, "four trainings have been asked for")
    until(
        lambda: any(child["state_type"] == "RUNNING" for child in children(workers, run_id)),
        120,
        "one trains",
    )
    workers.server.change(run_id, "CANCELLING")
    assert workers.server.wait(run_id, seconds=60)["state_type"] == "CANCELLED"

    def all_cancelled():
        return {child["state_type"] for child in children(workers, run_id)} == {"CANCELLED"}

    until(all_cancelled, 60, "its trainings are cancelled")


def test_a_search_that_is_killed_goes_on_and_ends_with_a_patch(workers, groups, tmp_path):
    asked = {"dataset": "digits", "model": "dense", "trials": 4, "parallel": 2, "seed": 11}
    first = workers.server.start("tune/tune", asked)
    until(lambda: record(groups, first), 240, "a trial is written down")
    process_of(first).send_signal(signal.SIGKILL)
    before = record(groups, first)
    assert 1 <= len(before) < 4
    workers.server.wait(first, {"CRASHED"}, 150)

    second = workers.run("tune/tune", asked, 400)
    trials = record(groups, second)
    # They are numbered anew, in the order in which they ended.
    kept = [{**trial, "number": number} for number, trial in enumerate(before)]
    assert trials[: len(before)] == kept
    assert sum(trial["state"] != "FAIL" for trial in trials) == 4
    assert groups.client.get_run(parent_of(groups, "tuning", first)).info.status == "KILLED"
    assert f"going on from {len(before)} trials" in workers.server.logs(second)
    shown = workers.server.artifacts(second)
    assert {"tuning", "patch", "tune", "trials", "importances"} <= set(shown)

    patch = groups.text(parent_of(groups, "tuning", second), "params.patch")
    (tmp_path / "params.yaml").write_text((workers.source / "params.yaml").read_text())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=patch, text=True, check=True)
    best = max(trials, key=lambda trial: trial["value"] or 0)
    recipe = load_params(tmp_path / "params.yaml").recipe("digits", "dense")
    assert recipe.batch_size == best["params"]["batch_size"]
    rate = best["params"]["optimizer.learning_rate"]
    assert recipe.optimizer.learning_rate == pytest.approx(rate, rel=1e-3)


def test_poor_trials_are_pruned(workers, groups, revision):
    # With this seed the fifth and the sixth trial have the rate that learns nothing.
    asked = {"dataset": "digits", "model": "cnn", "trials": 6, "parallel": 2, "seed": 119}
    run_id = workers.run("tune/tune", {**asked, "study": "pruned", "revision": revision}, 800)
    trials = record(groups, run_id)
    pruned = [trial for trial in trials if (trial["reason"] or "").startswith("pruned at epoch")]
    assert pruned
    for trial in pruned:
        assert trial["params"]["optimizer.learning_rate"] < 1e-6
        assert len(trial["intermediate"]) < trial["params"]["epochs"]
        assert workers.server.flow_run(trial["flow_run_id"])["state_type"] == "CANCELLED"
    best = max(trials, key=lambda trial: trial["value"] or 0)
    assert best["params"]["optimizer.learning_rate"] >= 0.001
