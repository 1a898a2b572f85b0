"""Promotion and rollback through the real MLflow server, with PostgreSQL and passwords."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.errors import TrackingError
from pipeline.evaluation.evaluate import evaluate
from pipeline.production.audit import audit
from pipeline.production.promote import promote
from pipeline.production.rules import Thresholds
from pipeline.registry import versions
from pipeline.registry.ledger_run import LedgerRun, ledger_of
from pipeline.training.train import train
from tests.stack.conftest import Stack
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
ROOT = Path(__file__).parent.parent.parent
PARAMS = """
dataset: tiny
models: [dense]
recipes: {tiny: {dense: {layers: [flatten], epochs: 1}}}
"""


@pytest.fixture(scope="module")
def project(stack: Stack, tmp_path_factory):
    """Register a poor model, which serves, and a good one on the server."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.env.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        patch.chdir(folder)
        tiny_project(folder)
        (folder / "params.yaml").write_text(PARAMS)
        splits = tiny_splits(folder / "data/processed/tiny")
        poor = {"name": "sgd", "learning_rate": 0.0001}
        for name, plan in {
            "short": tiny_plan("short", epochs=1, optimizer=poor),
            "dense": tiny_plan("dense"),
        }.items():
            trained = train(splits, plan, folder / name, device="cpu")
            evaluate(trained, splits, folder / "evaluation" / name)
            one = {name: (TrainedModel(folder / name), Evaluation(folder / "evaluation" / name))}
            output, first = folder / "registered.json", name == "short"
            register(one, splits, tiny_validation(), Thresholds(), output, auto_promote=first)
        yield SimpleNamespace(folder=folder, splits=splits)


@pytest.fixture
def second(project):
    """Return the project with the poor model in production, whatever a test before has done."""
    holders = versions.alias_holders("tiny")
    if holders["production"] != 1:
        command(project, "rollback", "tiny", "--to", "1", "--reason", "as it was")
    return project


def start(project, *arguments):
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("pipeline")), *arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(project, *arguments, code=0):
    process = start(project, *arguments)
    out, error = process.communicate(timeout=120)
    assert process.returncode == code, out + error
    return out + error


def test_promoted_rolled_back_and_told(second):
    assert "tiny version 2 is in production" in command(second, "promote", "tiny", "2")
    assert versions.alias_holders("tiny") == {"challenger": 2, "production": 2, "previous": 1}
    began = time.monotonic()
    said = command(second, "rollback", "tiny", "--reason", "a test", "--json")
    assert time.monotonic() - began < 30
    assert json.loads(said)["to"] == 1
    rows = json.loads(command(second, "history", "tiny", "--json"))["entries"]
    assert [row["action"] for row in rows][-2:] == ["promoted", "rolled back"]
    assert rows[-1]["account"] == os.environ["MLFLOW_TRACKING_USERNAME"]
    assert "every alias is where the ledger says" in command(second, "audit", "tiny")


def test_of_many_at_once_one_wins(second):
    before = len(ledger_of("tiny").entries())
    processes = [start(second, "promote", "tiny", "2", "--json") for _ in range(3)]
    outputs = [(p.communicate(timeout=300), p.returncode) for p in processes]
    actions = [json.loads(out)["action"] for (out, _), code in outputs if code == 0]
    # A process that comes later is told so, or finds it in production already.
    assert actions.count("promoted") == 1
    lost = [error for (_, error), code in outputs if code]
    assert all("another process wrote this entry first" in error for error in lost)
    assert len(ledger_of("tiny").entries()) == before + 1
    assert versions.alias_holders("tiny")["production"] == 2


class Line:
    """A line to a server that can be cut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.target = parts.hostname, parts.port
        self.listener = socket.create_server(("127.0.0.1", 0))
        # The server lets nobody call it by another name than its own.
        self.names = f"127.0.0.1:{self.listener.getsockname()[1]}".encode(), parts.netloc.encode()
        self.url = f"http://{self.names[0].decode()}"
        self.cut = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if self.cut:
                    near.close()
                    continue
                far = socket.create_connection(self.target)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while not self.cut and (data := source.recv(1 << 16)) and not self.cut:
                target.sendall(data.replace(*self.names))
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_server_that_goes_away_between_two_steps(second, monkeypatch):
    line = Line(os.environ["MLFLOW_TRACKING_URI"])
    append = LedgerRun.append

    def append_and_cut(self, entry):
        append(self, entry)
        line.cut = True

    before = len(ledger_of("tiny").entries())
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", line.url)
        patch.setattr(LedgerRun, "append", append_and_cut)
        with pytest.raises(TrackingError) as caught:
            promote(versions.find("tiny/2"), second.splits, Thresholds())
    line.listener.close()
    assert caught.value.retryable, str(caught.value)
    assert versions.alias_holders("tiny")["production"] == 1, "what served before still serves"
    assert len(ledger_of("tiny").entries()) == before + 1
    assert audit(["tiny"]) == [], "the next who asks finishes it"
    assert versions.alias_holders("tiny")["production"] == 2


def test_nothing_is_written_where_the_server_goes_away_before_the_entry(second, monkeypatch):
    line = Line(os.environ["MLFLOW_TRACKING_URI"])
    keep = LedgerRun.keep_decision

    def keep_and_cut(self, decision):
        key = keep(self, decision)
        line.cut = True
        return key

    before = ledger_of("tiny").entries()
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", line.url)
        patch.setattr(LedgerRun, "keep_decision", keep_and_cut)
        with pytest.raises(TrackingError) as caught:
            promote(versions.find("tiny/2"), second.splits, Thresholds())
    line.listener.close()
    assert caught.value.retryable, str(caught.value)
    assert ledger_of("tiny").entries() == before
    assert audit(["tiny"]) == []
    assert versions.alias_holders("tiny")["production"] == 1
