import io
import subprocess
import sys
import time

import pytest
from rich.console import Console

from pipeline.artifacts.files import write_json
from pipeline.artifacts.models import ModelVersion
from pipeline.errors import ArtifactError
from pipeline.reports.report import render
from pipeline.workspace import Workspace
from tests.conftest import ROOT

METRICS = {
    "parameters": 55_274,
    "val_accuracy": 0.98,
    "accuracy": 0.975,
    "accuracy_low": 0.955,
    "accuracy_high": 0.986,
    "training_seconds": 4.25,
}


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace("digits", tmp_path)
    for model in ("dense", "cnn"):
        write_json(workspace.evaluation(model).path / "metrics.json", METRICS)
    ModelVersion(
        name="digits",
        version=3,
        model="cnn",
        run_id="1",
        aliases=("challenger",),
        val_accuracy=0.98,
        test_accuracy=0.975,
        model_sha256="0",
        shortfalls=("accuracy 0.9750 is below the floor 0.99",),
    ).save(workspace.registered_path)
    return workspace


def text_of(workspace):
    output = io.StringIO()
    Console(width=160, file=output).print(render(workspace, ["dense", "cnn"]))
    return output.getvalue()


def test_the_models_side_by_side_and_what_to_try_next(workspace):
    text = text_of(workspace)
    row = next(line for line in text.splitlines() if " cnn " in line)
    for word in ("55,274", "98.00%", "97.50%", "95.5 to 98.6%", "4.2 s", "version 3"):
        assert word in row
    assert "version" not in next(line for line in text.splitlines() if " dense " in line)
    assert "challenger" in text
    assert "below the floor 0.99" in text
    for word in (
        "make ui",
        "dvc exp run register -S dataset=",
        "pipeline predict IMAGE --model digits@",
    ):
        assert word in text


def test_nothing_registered_yet_is_an_error(workspace):
    workspace.registered_path.unlink()
    with pytest.raises(ArtifactError, match=r"registered\.json"):
        render(workspace, ["dense", "cnn"])


def test_it_needs_nothing_heavy():
    code = (
        "import sys, pipeline.reports.report; "
        "sys.exit(', '.join({'mlflow', 'tensorflow', 'pandas'} & set(sys.modules)) or 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 5
