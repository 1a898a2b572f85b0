"""The store and the runs, on real SQLite files and real servers that misbehave."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.errors import TrackingError
from pipeline.registry import model_files
from pipeline.tracking.describe import environment, serving_requirements
from pipeline.tracking.run import flat
from pipeline.tracking.runs import existing_run, find_or_create_experiment, new_run
from pipeline.tracking.store import connect, in_turn, store_uri
from tests.conftest import ROOT
from tests.tiny import store, tiny_splits

__all__ = ["store"]


def history(client, run_id, key):
    return [(row.step, row.value) for row in client.get_metric_history(run_id, key)]


def script(code, folder, **variables):
    # MLflow writes the store that an earlier test asked for into the environment.
    dropped = {"MLFLOW_TRACKING_URI", "DVC_ROOT"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def new_store(tmp_path_factory):
    """Set up a database once; copies of the file are stores at once."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "params.yaml").touch()
    code = "from pipeline.tracking.store import connect; connect(); print('well')"
    processes = [script(code, folder) for _ in range(3)]
    results = [process.communicate(timeout=200) for process in processes]
    return folder, results


@pytest.fixture
def ready(store, new_store):
    """Return a folder with a store that is set up."""
    content = (new_store[0] / "mlflow.db").read_bytes()
    (store / "mlflow.db").write_bytes(content)
    return store


def test_processes_that_meet_on_a_new_store_all_work_and_say_nothing(new_store):
    assert new_store[1] == [("well\n", "")] * 3


def test_the_default_store_is_a_file_of_the_project(store, monkeypatch):
    assert store_uri() == f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert store_uri() == "http://127.0.0.1:1"


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:1"])
def test_copies_of_a_project_register_one_after_the_other(store, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    copy = store / ".dvc" / "tmp" / "exps" / "a"
    (copy / ".dvc").mkdir(parents=True)
    (copy / "params.yaml").touch()
    (copy / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {store}/.dvc/cache\n")
    code = (
        "from pipeline.tracking.store import in_turn\n"
        "print('ready', flush=True)\n"
        "with in_turn():\n"
        "    print('its turn')\n"
    )
    with in_turn():
        process = script(code, copy, MLFLOW_TRACKING_URI=uri)
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert process.communicate(timeout=60) == ("its turn\n", "")
    assert not list(copy.glob("mlflow*"))


def test_a_run_that_ends_well(ready):
    with new_run("tiny", "dense") as run:
        run.log_params({"optimizer": {"name": "adam"}, "epochs": 30})
        run.log_tags({"git_commit": None, "model": "dense"})
        run.log_dataset(tiny_splits(ready / "data"), "0" * 32 + ".dir")
        run.log_text("a summary", "summary.txt")
        for epoch in range(1, 31):
            run.log_metrics({"loss": 1 / epoch, "accuracy": epoch / 30}, step=epoch)
    client = connect()
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "dense"
    assert client.get_experiment(found.info.experiment_id).name == "tiny"
    assert found.data.params["optimizer.name"] == "adam"
    assert found.data.tags["model"] == "dense"
    assert "git_commit" not in found.data.tags
    assert history(client, run.run_id, "loss") == [(n, 1 / n) for n in range(1, 31)]
    assert len(history(client, run.run_id, "accuracy")) == 30
    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("tiny", "0" * 32 + ".dir")
    assert found.data.metrics["system/system_memory_usage_percentage"] > 0
    assert "system/cpu_utilization_percentage" in found.data.metrics
    assert (ready / "mlartifacts").is_dir()
    assert not (ready / "mlruns").exists()


def test_of_two_runs_that_log_a_new_dataset_at_once_neither_fails(ready, monkeypatch):
    """As a server with PostgreSQL answers the second one."""
    said = (
        'BAD_REQUEST: (psycopg2.errors.UniqueViolation) duplicate key value violates "dataset_pk" '
        "[SQL: INSERT INTO datasets (dataset_uuid, experiment_id, name, digest) VALUES (…)]"
    )
    log_inputs, answers = MlflowClient.log_inputs, [said]

    def late(client, *given):
        if answers:
            raise MlflowException(answers.pop())
        return log_inputs(client, *given)

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    with new_run("tiny", "dense") as run:
        run.log_dataset(tiny_splits(ready / "data"), "0" * 32 + ".dir")
    (found,) = connect().get_run(run.run_id).inputs.dataset_inputs
    assert found.dataset.digest == "0" * 32 + ".dir"


def kind(client):
    return client.get_experiment_by_name("tiny").tags.get("mlflow.experimentKind")


def test_an_experiment_says_that_it_is_for_training(ready):
    client = connect()
    find_or_create_experiment(client, "tiny")
    assert kind(client) == "custom_model_development"


@pytest.mark.parametrize("said", [None, "forecasting"])
def test_an_experiment_that_says_nothing_is_for_training(ready, said):
    client = connect()
    made = client.create_experiment("tiny")
    if said:
        client.set_experiment_tag(made, "mlflow.experimentKind", said)
    assert find_or_create_experiment(client, "tiny") == made
    assert kind(client) == (said or "custom_model_development")


def test_an_experiment_that_may_not_be_changed_is_used_as_it_is(ready):
    client = connect()
    made = client.create_experiment("tiny")
    # The store itself refuses: a tag of a deleted experiment is not to be had.
    client.delete_experiment(made)
    assert find_or_create_experiment(client, "tiny") == made
    assert kind(client) is None


def test_a_long_epoch_is_seen_when_it_ends(ready):
    with new_run("tiny", "dense") as run:
        run.log_metrics({"loss": 1.0}, step=1)
        time.sleep(3.1)
        run.log_metrics({"loss": 0.5}, step=2)
        assert history(connect(), run.run_id, "loss") == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("the loss\nbecame nan"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_run_that_ends_badly_says_why(ready, error, status):
    with pytest.raises(type(error)), new_run("tiny", "dense") as run:  # noqa: PT012
        run.log_metrics({"loss": 1.0}, step=1)
        raise error
    found = connect().get_run(run.run_id)
    assert found.info.status == status
    assert found.data.tags["failure"] in ("the loss became nan", "KeyboardInterrupt")
    assert found.data.metrics["loss"] == 1.0


def test_a_process_that_is_told_to_end_leaves_a_killed_run(ready):
    code = (
        "import signal, time\n"
        "from pipeline.tracking.runs import new_run\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"  # as the command line does
        "with new_run('tiny', 'dense') as run:\n"
        "    print(run.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with script(code, ready) as process:
        run_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert connect().get_run(run_id).info.status == "KILLED"


def test_a_run_can_be_continued_by_a_later_stage(ready):
    with new_run("tiny", "dense") as run:
        pass
    again = existing_run(run.run_id, "dvc repro")
    again.log_metrics({"test_accuracy": 0.9})
    again.flush()
    found = connect().get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["test_accuracy"] == 0.9


def test_a_run_of_another_store_is_named_with_the_way_out(ready):
    with pytest.raises(TrackingError, match=r"mlflow\.db has no run 1234.*: dvc repro --force x"):
        existing_run("1234", "dvc repro --force x")


def test_nested_values_get_dotted_names():
    assert flat({"a": {"b": {"c": 1}}, "d": [1, 2]}) == {"a.b.c": 1, "d": [1, 2]}


@pytest.fixture
def silent():
    """Listen, and never answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(uri, monkeypatch):
    """Return the reason for which a store is refused, which has to come soon."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        connect()
    assert time.monotonic() - start < 15
    text = str(caught.value)
    assert "\n" not in text
    assert "set MLFLOW_TRACKING_URI to" in text
    return text


def test_a_server_that_never_answers(silent, store, monkeypatch):
    assert "timed out" in refused(silent, monkeypatch)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("postgresql://me:secret@127.0.0.1:9/runs", "Connection refused"),
        ("file:./mlruns", "Could not parse"),
        ("sqlite:////proc/none/mlflow.db", "No such file"),
        ("sqlite:///data.csv", "not a database"),
    ],
)
def test_a_store_that_cannot_be(store, monkeypatch, uri, reason):
    (store / "data.csv").write_bytes(bytes(range(256)) * 10)
    text = refused(uri, monkeypatch)
    assert reason in text
    assert "secret" not in text


def test_a_model_that_is_a_pickle_is_not_loaded(store, monkeypatch):
    import mlflow.pyfunc

    class Pickled(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input: list[str], params=None):
            return model_input

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow.pyfunc.save_model("pickled", python_model=Pickled(), pip_requirements=[])
    with pytest.raises(TrackingError, match="pickle is disallowed"):
        model_files.load("pickled")


def test_the_environment_has_exact_versions():
    assert all(line.count("==") == 1 for line in serving_requirements())
    assert environment().packages["numpy"].startswith("2.")
