"""DVC's own ways to run experiments: in a temporary folder, and several from its queue at once."""

import json
import re
import shutil
import time

import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT, runner
from tests.test_graph import executed

EPOCHS = "recipes.digits.dense.epochs"
METRICS = "reports/digits/evaluation/dense/metrics.json"


def store_of(folder):
    uri = f"sqlite:///{folder}/mlflow.db"
    return MlflowClient(uri, uri)  # the registry's address is MLflow's own, wherever that was left


def runs(client):
    found = client.get_experiment_by_name("digits")
    return {run.info.run_id: run for run in client.search_runs([found.experiment_id])}


def shown(run):
    """Return the experiments that DVC shows: by name, what it says of the dense model."""
    rows = json.loads(run("dvc", "exp", "show", "--json").stdout)
    found = [row["revs"][0] for commit in rows for row in commit.get("experiments") or []]
    return {row["name"]: row["data"]["metrics"][METRICS]["data"] for row in found}


@pytest.mark.long
def test_a_run_in_a_temporary_folder_tracks_and_registers_as_one_in_the_workspace(workspace_copy):
    run = runner(workspace_copy)
    before = runs(store_of(workspace_copy))
    done = run("dvc", "exp", "run", "--temp", "-S", f"{EPOCHS}=2")
    assert executed(done.stdout) == ["resolve", "train@dense", "evaluate@dense", "register"]
    assert run("git", "status", "--porcelain").stdout == "", "the workspace is as it was"
    client = store_of(workspace_copy)
    (new,) = [row for run_id, row in runs(client).items() if run_id not in before]
    assert new.info.status == "FINISHED"
    assert new.data.params["epochs"] == "2"
    assert new.data.tags["git_branch"] == run("git", "branch", "--show-current").stdout.strip()
    assert new.data.tags["git_dirty"] == "False"
    (metrics,) = shown(run).values()
    assert new.data.metrics["test_accuracy"] == pytest.approx(metrics["accuracy"])
    name = re.findall(r"Ran experiment\(s\): (\S+)", done.stdout)[0]
    run("dvc", "exp", "apply", name)
    made = json.loads((workspace_copy / "models/digits/dense/run.json").read_text())
    assert made["run_id"] == new.info.run_id
    registered = json.loads((workspace_copy / "reports/digits/registered.json").read_text())
    version = client.get_model_version("digits", str(registered["version"]))
    assert version.run_id == registered["run_id"]
    held = client.get_registered_model("digits").aliases
    aliases = {alias for alias, number in held.items() if number == int(version.version)}
    assert aliases == set(registered["aliases"])
    assert "challenger" in aliases
    assert history(run)[0]["version"] == 1, "the ledger is that of the workspace"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_from_the_queue_run_side_by_side_and_register_in_turn(workspace_copy, tmp_path):
    run = runner(workspace_copy)
    # Both meet on a store that neither has set up.
    for path in workspace_copy.glob("mlflow.db*"):
        path.unlink()
    shutil.rmtree(workspace_copy / "mlartifacts")
    run("dvc", "exp", "run", "--queue", "-S", "models=[dense]", "-S", f"{EPOCHS}=range(2, 4)")
    # What was put into the queue runs with the code of then.
    code = workspace_copy / "pipeline" / "train.py"
    code.write_text("raise SystemExit('not the code of then')\n")
    # To a file: the workers keep a pipe open until they end.
    run("bash", "-c", f"dvc queue start -j 2 > {tmp_path}/start.log 2>&1")
    try:
        at_once = wait_for_the_queue(run)
    finally:
        run("dvc", "queue", "stop", "--kill", check=False)
    run("git", "checkout", "-q", "pipeline")
    assert at_once == 2
    found = shown(run)
    assert len(found) == 2
    logs = {name: run("dvc", "queue", "logs", name).stdout for name in found}
    assert all("Running stage 'register'" in log for log in logs.values()), logs
    client = store_of(workspace_copy)
    made = runs(client)
    assert {row.data.params["epochs"] for row in made.values()} == {"2", "3"}
    assert {row.info.status for row in made.values()} == {"FINISHED"}
    accuracies = [round(row.data.metrics["test_accuracy"], 6) for row in made.values()]
    assert sorted(accuracies) == sorted(round(row["accuracy"], 6) for row in found.values())
    versions = client.search_model_versions("name = 'digits'")
    assert {int(version.version) for version in versions} == {1, 2}
    assert {version.run_id for version in versions} == set(made)
    aliases = client.get_registered_model("digits").aliases
    assert aliases["challenger"] == 2
    assert [entry["sequence"] for entry in history(run)] == [1, 2]
    assert run("pipeline", "audit").returncode == 0


def history(run):
    return json.loads(run("pipeline", "history", "digits", "--json").stdout)["entries"]


def wait_for_the_queue(run):
    """Return how many ran at once, when all have ended well."""
    at_once, deadline = 0, time.monotonic() + 600
    while time.monotonic() < deadline:
        status = run("dvc", "queue", "status").stdout
        at_once = max(at_once, status.count("Running"))
        assert "Failed" not in status
        if status.count("Success") == 2:
            return at_once
        time.sleep(1)
    pytest.fail(f"the queue has not ended: {status}")


@pytest.mark.long
def test_a_walk_through_what_dvc_offers(workspace_copy, tmp_path):
    run = runner(workspace_copy)
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run("git", "commit", "-qam", "a remote")
    run("dvc", "push")
    before = accuracy(run)
    done = run("dvc", "exp", "run", "--name", "short", "-S", f"{EPOCHS}=2")
    assert executed(done.stdout) == ["resolve", "train@dense", "evaluate@dense", "register"]
    short = accuracy(run)
    assert shown(run)["short"]["accuracy"] == short != before
    assert EPOCHS in run("dvc", "params", "diff").stdout
    assert "evaluation/dense/metrics.json" in run("dvc", "metrics", "diff").stdout
    run("dvc", "plots", "diff")
    assert "val_accuracy" in (workspace_copy / "dvc_plots" / "index.html").read_text()
    shutil.rmtree(workspace_copy / "dvc_plots")
    run("dvc", "push")

    back_to_the_commit(run)
    assert accuracy(run) == before
    run("dvc", "exp", "apply", "short")
    assert accuracy(run) == short
    assert executed(run("dvc", "repro").stdout) == []
    run("dvc", "exp", "branch", "short", "shorter")

    run("dvc", "gc", "--workspace", "--force")
    shutil.copy(ROOT / "docs/images/accuracy.png", workspace_copy / "image.png")
    run("pipeline", "predict", "image.png", "--model", "digits@production")
    (workspace_copy / "image.png").unlink()
    run("git", "checkout", "-q", ".")
    run("dvc", "pull")
    back_to_the_commit(run)
    assert accuracy(run) == before
    run("git", "checkout", "-q", "shorter")
    run("dvc", "pull")
    assert accuracy(run) == short
    assert executed(run("dvc", "repro").stdout) == []
    assert run("git", "status", "--porcelain").stdout == ""


def back_to_the_commit(run):
    """Return to what is committed, which DVC has: nothing runs."""
    run("git", "checkout", "-q", ".")
    run("dvc", "checkout")
    assert executed(run("dvc", "repro").stdout) == []


def accuracy(run):
    """Return the test accuracy of the dense model in the workspace."""
    found = json.loads(run("dvc", "metrics", "show", "--json").stdout)
    return found[""]["data"][METRICS]["data"]["accuracy"]
