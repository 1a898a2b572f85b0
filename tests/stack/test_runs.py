"""Runs over a real server and real workers: asked for as the UI does, cached, isolated, ended."""

import json
import os
import signal
import time

import pytest

from flows.retries import BEFORE_RESTART
from pipeline.tracking.store import connect
from tests.conftest import runner
from tests.stack.running import processes, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

DENSE = {"models": ["dense"], "overrides": {"dense": {"epochs": 2}}}


def long_training(epochs):
    """Return parameters of a training that takes minutes, and that no other test has made."""
    return {"models": ["cnn"], "overrides": {"cnn": {"epochs": epochs}}, "until": "train"}


@pytest.fixture
def mlflow(workers, monkeypatch):
    """Return a client of the stack's MLflow server."""
    for name, value in workers.client_env.items():
        if name.startswith("MLFLOW_"):
            monkeypatch.setenv(name, value)
    yield connect()
    # MLflow writes it into the environment of the process.
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def runs_of(mlflow, flow_run_id, name="digits"):
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        return []
    query = f"tags.flow_run_id = '{flow_run_id}'"
    return list(mlflow.search_runs([experiment.experiment_id], query))


@pytest.fixture(scope="module")
def first(workers):
    """Run two models through all stages."""
    parameters = {**DENSE, "models": ["dense", "cnn"], "seed": 3}
    parameters["overrides"] = {"dense": {"epochs": 3}, "cnn": {"epochs": 2}}
    return parameters, workers.run("train/cpu", parameters)


def test_a_run_shows_its_stages_models_and_pictures(workers, first, mlflow):
    tasks = workers.server.tasks(first[1])
    assert {"ingest", "validate", "train dense", "evaluate cnn", "register", "keep"} <= set(tasks)
    assert {row["state_type"] for row in tasks.values()} == {"COMPLETED"}
    shown = workers.server.artifacts(first[1])
    assert {"summary", "models", "confusion-digits-cnn", "history-digits-dense"} <= set(shown)
    assert "epochs-digits-cnn" in shown
    assert shown["confusion-digits-cnn"]["data"].startswith("data:image/png;base64,")
    for row in workers.rows(first[1]):
        run = mlflow.get_run(row["run_id"])
        assert run.data.tags["flow_run_id"] == first[1]
        assert row["run_id"][:8] in shown["summary"]["data"]
        assert run.data.tags["git_dirty"] == "False"
        kept = {item.path for item in mlflow.list_artifacts(row["run_id"], "lineage")}
        assert kept == {"lineage/dvc.lock", "lineage/params.yaml"}
    assert workers.worktrees == []


def test_the_same_again_is_cached_and_names_the_same_mlflow_runs(workers, first):
    again = workers.run("train/cpu", first[0])
    tasks = workers.server.tasks(again)
    stages = [row for name, row in tasks.items() if name != "keep"]
    assert {row["state_name"] for row in stages} == {"Cached"}
    before, after = workers.rows(first[1]), workers.rows(again)
    assert [row["run_id"] for row in after] == [row["run_id"] for row in before]
    assert all(row["cached"] for row in after)
    for row in after:
        assert row["run_id"] in tasks[f"train {row['model']}"]["state"]["message"]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"dataset": "digit"}, "'digit' is not one of"),
        ({"overrides": {"cnn": {"epochs": 0}}}, "0 is less than the minimum of 1"),
        ({"overrides": {"cnn": {"epoch": 3}}}, "'epoch' was unexpected"),
        ({"device": "tpu"}, "'tpu' is not one of"),
    ],
)
def test_a_bad_value_is_refused_before_a_run_exists(workers, parameters, reason):
    def count():
        return workers.server.read("POST", "/flow_runs/count", {})

    before = count()
    answer = workers.server.request("train/cpu", parameters)
    assert not answer.is_success
    assert reason in answer.text
    assert count() == before


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"models": ["fast"]}, "unknown model 'fast' for dataset 'digits'; allowed: dense, cnn"),
        ({"revision": "mian"}, "no revision 'mian'"),
    ],
)
def test_what_only_the_revision_knows_fails_at_once(workers, parameters, reason):
    run_id = workers.server.start("train/cpu", parameters)
    done = workers.server.wait(run_id, seconds=60)
    assert done["state_type"] == "FAILED"
    assert reason in done["state"]["message"]
    assert workers.worktrees == []


def test_three_at_once_neither_wait_for_a_lock_nor_mix(workers, mlflow):
    asked = {epochs: {**DENSE, "overrides": {"dense": {"epochs": epochs}}} for epochs in (4, 5, 6)}
    ids = {epochs: workers.server.start("train/cpu", asked[epochs]) for epochs in asked}
    for epochs, run_id in ids.items():
        done = workers.server.wait(run_id, seconds=300)
        assert done["state_type"] == "COMPLETED", done["state"]
        (row,) = workers.rows(run_id)
        assert row["epochs"] == epochs
        assert mlflow.get_run(row["run_id"]).data.params["epochs"] == str(epochs)
        assert "busy" not in workers.server.logs(run_id)
        assert {task["run_count"] for task in workers.server.tasks(run_id).values()} == {1}
    assert workers.worktrees == []


def test_deploying_again_leaves_a_schedule_on_that_somebody_turned_on(workers):
    def schedule():
        made = workers.server.read("GET", "/deployments/name/train/nightly")
        return made["id"], made["schedules"][0]

    deployment, before = schedule()
    assert not before["active"]
    path = f"/deployments/{deployment}/schedules/{before['id']}"
    assert workers.server.ask("PATCH", path, {"active": True}).is_success
    workers.deploy()
    _, after = schedule()
    assert after["active"]
    path = f"/deployments/{deployment}/schedules/{after['id']}"
    assert workers.server.ask("PATCH", path, {"active": False}).is_success


def test_deploying_deletes_deployments_that_have_another_name_now(workers):
    flow = workers.server.read("POST", "/flows/", {"name": "compare"})["id"]
    workers.server.read("POST", "/deployments/", {"flow_id": flow, "name": "compare"})
    workers.deploy()
    assert workers.server.ask("GET", "/deployments/name/compare/compare").status_code == 404
    assert workers.server.ask("GET", "/deployments/name/grid/grid").status_code == 200


def in_training(workers, mlflow, epochs):
    """Start a long training, and return its flow run once epochs have reached MLflow."""
    run_id = workers.server.start("train/cpu", long_training(epochs))

    def progress():
        found = runs_of(mlflow, run_id)
        return found and "val_accuracy" in found[0].data.metrics

    until(progress, 120, "epochs in MLflow")
    return run_id


def test_a_cancelled_run_ends_within_ten_seconds(workers, mlflow):
    run_id = in_training(workers, mlflow, 5001)
    since = time.monotonic()
    workers.server.change(run_id, "CANCELLING")
    until(lambda: not workers.trainings(), 10, "the training has ended")
    assert time.monotonic() - since < 10
    until(lambda: runs_of(mlflow, run_id)[0].info.status == "KILLED", 5, "KILLED in MLflow")
    workers.server.wait(run_id, {"CANCELLED"}, 30)
    assert workers.worktrees == []


def kill_flow(run_id):
    """Kill the process of a flow run as the system does when memory is short."""
    for process in processes("prefect.engine"):
        if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
            process.send_signal(signal.SIGKILL)


def test_a_killed_flow_is_crashed_and_tried_again_at_most_twice(workers, mlflow):
    run_id = in_training(workers, mlflow, 5002)

    def runs_so_far():
        return workers.server.flow_run(run_id)["run_count"]

    for attempt in (1, 2, 3):
        until(workers.trainings, 90, "a training")
        assert runs_so_far() == attempt
        kill_flow(run_id)
        workers.server.wait(run_id, {"CRASHED"}, 30)
        until(lambda: not workers.trainings(), 15, "the training has ended too")
        if attempt < 3:
            until(lambda: runs_so_far() > attempt, 120, "it is tried again")  # noqa: B023
    # Longer than it takes to restart a run.
    time.sleep(BEFORE_RESTART.total_seconds() + 10)
    assert workers.server.flow_run(run_id)["state_type"] == "CRASHED"
    until(
        lambda: {run.info.status for run in runs_of(mlflow, run_id)} == {"KILLED"},
        10,
        "KILLED in MLflow",
    )
    (run,) = runs_of(mlflow, run_id)  # each went on where the one before was
    steps = [row.step for row in mlflow.get_metric_history(run.info.run_id, "val_loss")]
    assert sorted(steps) == list(range(1, len(steps) + 1))


def test_runs_whose_worker_dies_are_crashed_and_their_places_are_free(workers, mlflow):
    """Of two runs, one is killed with its worker, and the other is left alone."""
    killed, alone = (in_training(workers, mlflow, epochs) for epochs in (5003, 5004))
    workers.kill("cpu")
    kill_flow(killed)
    since = time.monotonic()
    for run_id in (killed, alone):
        workers.server.wait(run_id, {"CRASHED", "AwaitingRetry"}, 120)
    print(f"crashed after {time.monotonic() - since:.0f} s")
    until(lambda: not workers.trainings(), 10, "the trainings have ended too")
    # Their places are free: with a new worker they are tried again, beside another run.
    for run_id in (killed, alone):
        workers.server.wait(run_id, {"AwaitingRetry"}, 60)
    workers.start("cpu")
    for run_id in (killed, alone):
        workers.server.wait(run_id, {"RUNNING"}, 60)
    workers.run("train/cpu", {"until": "preprocess"})
    for run_id in (killed, alone):
        workers.server.change(run_id, "CANCELLING")
    for run_id in (killed, alone):
        workers.server.wait(run_id, {"CANCELLED"}, 30)
    assert workers.worktrees == []


def test_a_second_pool_whose_worker_starts_late(workers):
    waiting = workers.server.start("train/gpu", {**DENSE, "device": "auto"})
    refused = workers.server.start("train/gpu", {})
    time.sleep(5)
    assert workers.server.flow_run(waiting)["state_type"] == "SCHEDULED"
    workers.start("gpu")
    assert workers.server.wait(waiting)["state_type"] == "COMPLETED"
    done = workers.server.wait(refused, seconds=60)
    if processes("nvidia-persistenced"):
        pytest.skip("this machine has a GPU")
    assert done["state_type"] == "FAILED"
    assert "TensorFlow finds no GPU here" in done["state"]["message"]


def test_a_tracking_server_that_restarts_loses_nothing_and_doubles_nothing(workers, stack, mlflow):
    run_id = workers.server.start("train/cpu", long_training(300))
    until(lambda: runs_of(mlflow, run_id), 60, "the MLflow run")
    time.sleep(3)
    stack.restart("mlflow")
    done = workers.server.wait(run_id, seconds=400)
    assert done["state_type"] == "COMPLETED", done["state"]
    (run,) = runs_of(mlflow, run_id)
    assert run.info.status == "FINISHED"
    for key in ("loss", "val_accuracy"):
        history = mlflow.get_metric_history(run.info.run_id, key)
        assert [row.step for row in sorted(history, key=lambda r: r.step)] == list(range(1, 301))


def test_a_dataset_that_fails_names_its_files(workers, mlflow):
    """Made-up images of which most are blank, in a commit of their own."""
    from PIL import Image

    for name in ("rose", "tulip"):
        folder = workers.source / "data/own/blank" / name
        folder.mkdir(parents=True)
        for number in range(12):
            Image.new("L", (16, 16), 0 if number else 200).save(folder / f"{number}.png")
    params = workers.source / "params.yaml"
    entry = "datasets:\n  blank:\n    source: data/own/blank\n    image_size: [16, 16]\n"
    params.write_text(
        params.read_text()
        .replace("dataset: digits ", "dataset: blank ")
        .replace("datasets:\n", entry)
    )
    git = runner(workers.source)
    git("git", "checkout", "-q", "-b", "blank")
    git("git", "commit", "-qam", "a dataset that cannot pass")
    git("git", "checkout", "-q", "-")
    # The server knows the datasets of the commit that was deployed; a revision may have others.
    made = workers.server.read("GET", "/deployments/name/train/cpu")
    workers.server.read(
        "POST",
        f"/deployments/{made['id']}/create_flow_run",
        {
            "parameters": {"dataset": "blank", "models": ["dense"], "revision": "blank"},
            "enforce_parameter_schema": False,
        },
    )
    run = workers.server.read(
        "POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    )[0]
    done = workers.server.wait(run["id"], seconds=90)
    assert done["state_type"] == "FAILED"
    assert "validate: " in done["state"]["message"]
    page = workers.server.artifacts(run["id"])["validation-blank"]["data"]
    assert "rose/" in page
    (kept,) = runs_of(mlflow, run["id"], "blank")
    assert kept.info.status == "FAILED"
    docs = mlflow.list_artifacts(kept.info.run_id, "validation/data_docs")
    assert [item.path for item in docs] == ["validation/data_docs/index.html"]
    assert {task["run_count"] for task in workers.server.tasks(run["id"]).values()} == {1}


def test_both_runners_give_the_same_metrics(workers, deterministic):
    runner(workers.source)("git", "fetch", "-q", str(deterministic), "HEAD:deterministic")
    run_id = workers.run("train/cpu", {"revision": "deterministic"})
    for row in workers.rows(run_id):
        path = deterministic / f"reports/digits/evaluation/{row['model']}/metrics.json"
        metrics = json.loads(path.read_text())
        for key in ("accuracy", "accuracy_low", "accuracy_high", "val_accuracy"):
            assert row[key] == metrics[key]
        assert row["run_id"] != metrics["run_id"], "each trained it itself"


def test_what_was_made_is_pushed_where_there_is_a_remote(workers, tmp_path):
    remote = tmp_path / "remote"
    remote.mkdir()
    local = workers.source / ".dvc/config.local"
    local.write_text(f"[core]\n    remote = team\n['remote \"team\"']\n    url = {remote}\n")
    try:
        run_id = workers.run("train/cpu", {**DENSE, "seed": 11, "until": "train"})
    finally:
        local.unlink()
    assert workers.server.tasks(run_id)["keep"]["state_type"] == "COMPLETED"
    lock = workers.home / "unused"
    assert not lock.exists()
    files = [path for path in remote.rglob("*") if path.is_file()]
    assert any("runs" in path.parts for path in files), "the run cache"
    assert len(files) > 10
