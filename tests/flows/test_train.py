"""The flow: its steps are those of dvc.yaml, its form is checked, and it reuses what DVC has."""

import json
import re
from typing import Any

import pytest
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate
from ruamel.yaml import YAML

from flows.deploy import SLOTS
from flows.execution.job import steps
from flows.pages.view import key, page_link
from flows.train import train
from pipeline.tracking.addresses import mlflow_url
from pipeline.training.history import Epoch
from pipeline.training.progress import LINE, TrainProgress
from tests.conftest import ROOT, runner

GRAPH = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
DEPLOYMENTS = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]


def test_the_steps_are_the_stages_of_dvc_in_their_order():
    models = ("dense", "cnn")
    expected = [
        f"{name}@{model}" if "foreach" in stage else name
        for name, stage in GRAPH.items()
        for model in (models if "foreach" in stage else (None,))
    ]
    assert steps(models, "register") == expected
    assert steps(models, "preprocess") == expected[:4]
    assert steps(models, "train") == expected[:6]


@pytest.fixture(scope="module")
def schema():
    return json.loads(json.dumps(parameter_schema(train).model_dump_for_openapi()))


def test_every_parameter_has_a_description_and_a_default(schema):
    assert {"dataset", "models", "overrides", "device", "revision", "seed", "auto_promote"} <= set(
        schema["properties"]
    )
    for name, field in schema["properties"].items():
        assert field.get("description"), name
        assert "default" in field, name


def test_lists_are_lists_in_the_form(schema):
    assert "cifar10_images" in schema["properties"]["dataset"]["enum"]
    assert schema["properties"]["device"]["enum"] == ["auto", "cpu", "gpu"]
    assert "cnn_bn" in schema["properties"]["models"]["items"]["enum"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"dataset": "digit"},
        {"models": []},
        {"models": ["cn"]},
        {"overrides": {"cnn": {"epochs": 0}}},
        {"overrides": {"cnn": {"epoch": 3}}},
        {"overrides": {"cn": {"epochs": 3}}},
        {"overrides": {"cnn": {"optimizer": {"name": "adamm"}}}},
        {"device": "tpu"},
        {"seed": -1},
        {"seed": "one"},
        {"auto_promote": "perhaps"},
        {"until": "deploy"},
    ],
)
def test_what_the_server_refuses(schema, parameters):
    with pytest.raises(ValidationError):
        validate(parameters, schema, raise_on_error=True, ignore_required=True)


def test_what_the_server_takes(schema):
    parameters = {
        "dataset": "digits",
        "models": ["cnn"],
        "overrides": {"cnn": {"epochs": 3, "optimizer": {"learning_rate": 0.01}}},
        "seed": None,
    }
    validate(parameters, schema, raise_on_error=True, ignore_required=True)
    train.validate_parameters(parameters)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_every_deployment_is_a_flow_that_takes_its_parameters(deployment):
    entrypoint = deployment["entrypoint"]
    found: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    found.validate_parameters({**_required(found), **deployment.get("parameters", {})})
    assert deployment["description"]
    assert deployment["work_pool"]["name"] in SLOTS
    for schedule in deployment.get("schedules", []):
        only_looks = deployment["name"] == "audit"
        assert schedule["active"] == only_looks, "what trains is off until somebody turns it on"


def _required(found):
    examples = {"dataset": "digits", "model": "cnn", "reason": "a look"}
    return {name: examples[name] for name in parameter_schema(found).required}


def test_the_lines_of_a_training_can_be_read_back(capfd):
    with TrainProgress("digits cnn", 3) as progress:
        progress.on_epoch(Epoch(1, 0.5, 0.9, 0.4, 0.91, 0.001, 0.1))
    line = capfd.readouterr().err.splitlines()[0]
    found = LINE.fullmatch(line)
    assert found is not None
    assert (found["name"], found["epoch"], found["epochs"]) == ("digits cnn", "1", "3")


def test_links_lead_to_where_browsers_find_mlflow(monkeypatch):
    monkeypatch.delenv("MLFLOW_UI_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert mlflow_url() is None
    assert page_link("a run", "1", "abc") == "a run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert page_link("a run", "1", "abc") == "[a run](http://mlflow:5000/#/experiments/1/runs/abc)"
    monkeypatch.setenv("MLFLOW_UI_URL", "http://127.0.0.1:5000/")
    assert mlflow_url() == "http://127.0.0.1:5000"
    assert key("confusion", "My_Flowers", "cnn") == "confusion-my-flowers-cnn"


@pytest.mark.long
def test_on_the_spot_it_finds_what_dvc_has_and_names_the_same_runs(workspace_copy, tmp_path):
    run = runner(workspace_copy, PREFECT_HOME=str(tmp_path / "prefect"))
    made = {
        model: json.loads((workspace_copy / f"models/digits/{model}/run.json").read_text())
        for model in ("dense", "cnn")
    }
    lock = workspace_copy / "dvc.lock"
    # As if DVC had been ended while it wrote it.
    lock.write_bytes(lock.read_bytes().rpartition(b"path: ")[0])
    assert run("dvc", "status", check=False).returncode != 0
    done = run("pipeline", "run")
    log = done.stdout + done.stderr
    assert log.count("dvc.lock was cut off while DVC wrote it") == 1
    assert len(re.findall(r"Finished in state Cached", log)) == 9
    assert "Running stage" not in log
    for row in made.values():
        assert f"MLflow run {row['run_id']}" in log
    assert "production" in done.stdout
    assert run("git", "status", "--porcelain").stdout == ""


def test_on_the_spot_a_slow_machine_has_time_to_start_its_server():
    shown = (
        "import flows.train_here; from prefect.settings import get_current_settings;"
        "print(get_current_settings().server.ephemeral.startup_timeout_seconds)"
    )
    assert runner(ROOT)("python", "-c", shown).stdout == "120\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--set", "cnn.epochs=0"], "recipes.digits.cnn.epochs: input should be greater"),
        (["--set", "cnn.epoch=3"], "a recipe has no 'epoch'"),
        (["--models", "cnn,fast"], "unknown model 'fast' for dataset 'digits'"),
        (["--dataset", "digit"], "unknown dataset 'digit'"),
        (["--dataset", "mnist", "--models", "cnn", "--set", "dense.epochs=3"], "is not trained"),
    ],
)
def test_on_the_spot_bad_input_is_one_line_and_nothing_changes(workspace_copy, options, reason):
    run = runner(workspace_copy)
    done = run("pipeline", "run", *options, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run("git", "status", "--porcelain").stdout == ""
