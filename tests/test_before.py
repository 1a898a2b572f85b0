"""Versions of an earlier release still load, roll back, compare and show their lineage.

`before/store.tar.xz` was made by a release that had no packages: two versions of a tiny model, of
which the second replaced the first in production.
"""

import json
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ARCHIVE = Path(__file__).parent / "before" / "store.tar.xz"
MADE_AT = "/tmp/old/project"
# Where MLflow writes down the place of a file.
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command of the pipeline in the project that was made then."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store, store:
        for table, column in PLACES.items():
            change = f"update {table} set {column} = replace({column}, ?, ?)"
            store.execute(change, (MADE_AT, str(tmp_path)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments):
        command = [str(Path(sys.executable).with_name("pipeline")), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_version_of_before_is_rolled_back_to_with_the_code_that_is_stored_with_it(run):
    assert json.loads(run("rollback", "tiny", "--reason", "a try", "--json"))["to"] == 1
    entries = json.loads(run("history", "tiny", "--json"))["entries"]
    assert [(entry["action"], entry["version"]) for entry in entries] == [
        ("promoted", 1),
        ("promoted", 2),
        ("rolled back", 1),
    ]
    assert "every alias is where the ledger says" in run("audit", "tiny")


def test_its_decision_is_shown(run):
    shown = run("history", "tiny", "--entry", "2")
    assert "version 2, against version 1" in shown
    assert "not_a_reseed" in shown
    decision = json.loads(run("history", "tiny", "--entry", "2", "--json"))["decision"]
    assert {row["name"] for row in decision["checks"]} >= {"accuracy", "better", "classes"}


def test_what_made_it_is_told_and_compared(run):
    assert "latency, median" in run("lineage", "tiny@production")
    found = json.loads(run("compare", "tiny/1", "tiny/2", "--json"))
    changes = json.dumps(found)
    assert "dense: 16" in changes
    assert "dense: 32" in changes
    table = run("compare", "tiny/1", "tiny/2")
    assert "code: the same" in table, "dvc.lock says which modules trained it"
