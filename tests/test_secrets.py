"""No password or token is in what a command, a stage or a store says and keeps."""

import json
import logging
import shutil
import sys
import traceback
from pathlib import Path

import pytest
from PIL import Image
from tenacity import wait_none
from typer.testing import CliRunner

from flows.execution import run_log
from pipeline import cli
from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.registry import versions
from pipeline.tracking.store import connect
from tests.accounts import server
from tests.conftest import runner
from tests.registered import CANARY, ENVIRONMENT, REMOTE, registered

ADDRESSES = (f"http://me:{CANARY}@127.0.0.1:9", f"postgresql://me:{CANARY}@127.0.0.1:9/mlflow")
PARAMS = """
dataset: tiny
models: [dense]
datasets: {own: {source: "SOURCE", image_size: [8, 8]}}
recipes: {default: {dense: {layers: [flatten], epochs: 1}}}
"""
RUN = "0" * 32
# Everything that works with a store.
COMMANDS = (
    ["promote", "tiny"],
    ["promote", "tiny", "1", "--dry-run", "--json"],
    ["promote", "tiny", "--force", "--reason=why", "--who=Ada"],
    ["rollback", "tiny", "--reason=why"],
    ["history", "tiny"],
    ["history", "tiny", "--json"],
    ["audit"],
    ["audit", "tiny", "--restore", "--json"],
    ["lineage", "tiny@production"],
    ["lineage", "tiny/1", "--check", "--json"],
    ["lineage", "tiny/1", "--show", "diff"],
    ["card", "tiny@production"],
    ["compare", "tiny/1", RUN],
    ["predict", "image.png", "--model", "tiny@production"],
    ["reproduce", "tiny/1"],
    ["ui"],
)
LONG = ("reproduce", "ui")


def holding(folder):
    """Return the files below a folder that hold the canary."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return registered(tmp_path_factory.getbasetemp())


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """Work beside a copy of the registry, with a secret in every place that has one."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pipeline.production.notify.BACKOFF", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shutil.copy(made / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS.replace("SOURCE", "data/own"))
    Path("image.png").write_bytes(b"no image")
    # The processed images, which a promotion asks both versions about.
    shutil.copytree(made / "data", "data/processed/tiny")
    return tmp_path


def said(*arguments):
    """Run a command; return all that it says, as `main` would print it."""
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, list(arguments))
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.output
    return result.output + "".join(traceback.format_exception_only(result.exception))


def test_what_training_evaluation_and_registration_have_stored(made):
    planted = {made / ".git" / "config"}
    assert set(holding(made)) == planted


def test_mlflow_notes_the_repository_without_its_token(made, here):
    run = connect().get_run(versions.find("tiny/1").run_id)
    (model,) = connect().search_logged_models([run.info.experiment_id])
    (used,) = run.inputs.dataset_inputs
    for tags in (model.tags, json.loads(used.dataset.source)["tags"]):
        assert tags["mlflow.source.git.repoURL"] == "https://git.example/project.git"


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c[0] not in ("ui", "reproduce")], ids=str
)
def test_what_a_command_says_and_writes(here, command):
    text = said(*command)
    assert text
    assert CANARY not in text
    assert holding(here) == []


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_what_a_command_says_of_a_store_that_is_away(here, monkeypatch, command, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    text = said(*command)
    assert "127.0.0.1:9" in text
    assert CANARY not in text
    assert holding(here) == []


@pytest.mark.parametrize(
    "source",
    [
        f"https://me:{CANARY}@images.example/a.zip",
        f"https://images.example/a.zip?token={CANARY}",
        f"https://images.example/a.zip?X-Amz-Signature={CANARY}&X-Amz-Date=1",
    ],
)
def test_a_source_with_a_secret_is_refused(here, source):
    Path("params.yaml").write_text(PARAMS.replace("SOURCE", source))
    text = said("resolve")
    assert "datasets.own.source: https://" in text
    assert "~/.netrc" in text
    assert CANARY not in text
    assert not Path("plan").exists()
    # Nor does a mistake beside it give the secret away.
    Path("params.yaml").write_text(PARAMS.replace("SOURCE", source).replace("[8, 8]", "[8, 8"))
    assert CANARY not in said("resolve")


def test_a_mirror_that_is_away_keeps_its_password(here, monkeypatch):
    monkeypatch.setattr("pipeline.sources.patience.wait_exponential", lambda **_: wait_none())
    Path("params.yaml").write_text(PARAMS.replace("dataset: tiny", "dataset: mnist"))
    said("resolve")
    text = said("ingest")
    assert "http://***@127.0.0.1:9/mnist/" in text
    assert CANARY not in text
    assert holding(here) == []


def test_an_error_that_nobody_expected_is_shown_without_secrets(here, capsys):
    try:
        raise ValueError(f"http://me:{CANARY}@host") from KeyError(CANARY)
    except ValueError:
        cli._show(*sys.exc_info())
    text = capsys.readouterr().err
    assert "ValueError: http://***@host" in text
    assert CANARY not in text


def test_the_log_of_a_flow_has_no_secrets(here):
    assert run_log.without_secrets in logging.getLogger("prefect.flow_runs").filters
    assert run_log.without_secrets in logging.getLogger("prefect.task_runs").filters
    try:
        cause = ValueError(f"API request to http://me:{CANARY}@host failed")
        raise PipelineError("away") from cause
    except PipelineError:
        error = sys.exc_info()
    record = logging.LogRecord("x", 40, "x", 1, "it is %s", (CANARY,), error)
    assert run_log.without_secrets(record)
    text = logging.Formatter("%(message)s").format(record)
    assert "it is ***" in text
    assert "API request to http://***@host failed" in text
    assert CANARY not in text


@pytest.fixture
def server_environment(tmp_path):
    """Return secrets wherever they may stand, for commands that work with a server."""
    with server(tmp_path / "server", "admin", CANARY) as address:
        # A token would take the place of the password.
        other = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("MLFLOW_TRACKING_")}
        yield {
            **other,
            "MLFLOW_TRACKING_URI": address.replace("://", f"://admin:{CANARY}@"),
            "PREFECT_HOME": str(tmp_path / "prefect"),
        }


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_stage_flow_and_command(workspace_copy, tmp_path, server_environment):
    """The graph, the flow and the commands on digits, with a server that has accounts."""
    run = runner(workspace_copy)
    run("git", "remote", "set-url", "origin", REMOTE)
    planted = {"credentials.json", "README.md"}
    for name in planted:
        (workspace_copy / name).write_text(CANARY)
    text = (workspace_copy / "params.yaml").read_text()
    for old, new in {"models: [dense, cnn]": "models: [dense]", "epochs: 60": "epochs: 2"}.items():
        assert old in text
        text = text.replace(old, new)
    (workspace_copy / "params.yaml").write_text(text)
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    output = []
    for command, *codes in (
        (["dvc", "repro"], 0),
        (
            [
                "pipeline",
                "run",
                "--models",
                "dense",
                "--set",
                "dense.epochs=1",
                "--no-auto-promote",
            ],
            0,
        ),
        (["git", "checkout", "params.yaml"], 0),
        (["pipeline", "report"], 0),
        (["pipeline", "promote", "digits", "2", "--force", "--reason=why"], 0),
        (["pipeline", "promote", "digits", "1"], 0, 3),
        (["pipeline", "rollback", "digits", "--reason=why"], 0),
        (["pipeline", "history", "digits"], 0),
        (["pipeline", "history", "digits", "--json"], 0),
        (["pipeline", "audit"], 0),
        (["pipeline", "lineage", "digits/1", "--json"], 0),
        (["pipeline", "card", "digits/1"], 0),
        (["pipeline", "compare", "digits/1", "digits/2"], 0),
        (["pipeline", "predict", str(tmp_path / "image.png"), "--model", "digits/1"], 0),
        (["pipeline", "reproduce", "digits/1", "--tolerance=1"], 0, 3),
    ):
        done = run(*command, check=False, **server_environment)
        output.append(done.stdout + done.stderr)
        assert done.returncode in codes, output[-1]
    assert "admin" in output[7]
    assert [text for text in output if CANARY in text] == []
    # Logs and artifacts of the flow are in Prefect's database.
    folders = holding(tmp_path / "server"), holding(tmp_path / "prefect"), holding(workspace_copy)
    assert [path.name for path in folders[0]] == ["auth.ini"]
    assert folders[1] == []
    # The secret itself stands in the tests, of which this is a clone.
    assert {path.name for path in folders[2]} == {*planted, "config", "registered.py"}
