"""The project is found from below, and all copies of it share one MLflow store."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Prefect closes logging handlers when it is first imported; within CliRunner, absl's handler closes
# pytest's stderr.
import flows.train_here  # noqa: F401
from pipeline.artifacts import project
from pipeline.cli import app
from pipeline.errors import ParamsError, PipelineError, TrackingError
from pipeline.tracking.store import store_uri
from tests.conftest import ROOT, runner
from tests.tiny import store

__all__ = ["store"]
IMAGE = ROOT / "docs/images/accuracy.png"


def made(folder: Path, **cache: str) -> Path:
    """Make a project whose DVC has a cache; the keywords are files of settings."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / "params.yaml").touch()
    for name, place in cache.items():
        (folder / ".dvc" / name.replace("_", ".")).write_text(f"[cache]\n    dir = {place}\n")
    return folder


def test_it_is_found_from_any_folder_below(store, monkeypatch):
    monkeypatch.delenv(project.DVC_ROOT, raising=False)
    below = store / "docs" / "images"
    below.mkdir(parents=True)
    assert project.root() == Path()
    for folder, seen in ((below, "../.."), (below.parent, "..")):
        monkeypatch.chdir(folder)
        assert project.root() == Path(seen)
        assert store_uri() == f"sqlite:///{store}/mlflow.db"


def test_outside_of_one_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ParamsError, match=rf"{tmp_path} is in no project: .*params\.yaml; cd into"):
        project.root()
    assert project.root(or_here=True) == Path()
    with pytest.raises(TrackingError, match=r"no MLflow store: .* is in no project; cd into one"):
        store_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert store_uri() == "http://mlflow:5000"


def test_a_copy_has_the_store_of_the_project_whose_cache_it_uses(tmp_path, monkeypatch):
    monkeypatch.delenv(project.DVC_ROOT, raising=False)
    original = made(tmp_path / "original")
    moved = made(tmp_path / "moved", config="../data/cache")
    copies = [
        made(original / ".dvc/tmp/exps/a", config_local=str(original / ".dvc/cache")),
        made(tmp_path / "relative", config="../../original/.dvc/cache"),
        made(tmp_path / "both", config="/elsewhere", config_local=f"{original}/.dvc/cache"),
    ]
    for copy in (original, *copies):
        assert project.store_file(copy) == original / "mlflow.db"
    assert project.store_file(moved) == moved / "mlflow.db"


def test_a_cache_outside_of_all_projects_leaves_it_to_dvc_whose_copy_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv(project.DVC_ROOT, raising=False)
    (tmp_path / "shared/.dvc/cache").mkdir(parents=True)
    for number, cache in enumerate(("/shared/cache", str(tmp_path / "shared/.dvc/cache"))):
        original = made(tmp_path / f"original{number}", config_local=cache)
        copy = made(original / ".dvc/tmp/exps/a", config_local=cache)
        assert project.store_file(original) == original / "mlflow.db"
        with monkeypatch.context() as stage:
            stage.setenv(project.DVC_ROOT, str(original))
            assert project.store_file(copy) == original / "mlflow.db"


def test_a_store_that_a_copy_has_already_stays_in_use(tmp_path):
    original = made(tmp_path / "original")
    copy = made(tmp_path / "copy", config_local=str(original / ".dvc/cache"))
    (copy / "mlflow.db").touch()
    assert project.store_file(copy) == copy / "mlflow.db"


def test_settings_of_dvc_that_cannot_be_read_are_named(tmp_path):
    broken = made(tmp_path / "broken")
    (broken / ".dvc/config").write_text("[cache\n")
    with pytest.raises(ParamsError, match=r"\.dvc/config cannot be read"):
        project.store_file(broken)


def test_commands_work_from_a_folder_below(reproduced):
    docs = reproduced / "docs"
    run = runner(docs, PYTHONPATH=str(reproduced))
    assert "production" in run("pipeline", "report").stdout
    image = docs / "image.png"
    shutil.copy(IMAGE, image)
    for model in ("digits@production", "../models/digits/cnn"):
        # The path is that of somebody who stands there.
        assert "image.png" in run("pipeline", "predict", "image.png", "--model", model).stdout
    assert "every check passed" in run("pipeline", "history", "digits").stdout
    made_card = run("pipeline", "card", "digits/1").stdout.strip()
    assert made_card == "../reports/digits/card-1.html"
    assert (docs / made_card).is_file()
    plan = (reproduced / "plan/digits/dataset.json").read_bytes()
    run("pipeline", "resolve")
    assert (reproduced / "plan/digits/dataset.json").read_bytes() == plan
    image.unlink()
    (docs / made_card).unlink()
    assert runner(reproduced)("git", "status", "--porcelain").stdout == ""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Work outside of a project, with an image to classify."""
    shutil.copy(IMAGE, tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "report",
        "predict image.png --model digits@production",
        "history digits",
        "card digits@production",
        "compare digits/1 digits/2",
        "promote digits",
        "audit",
        "run",
        "ui",
        "resolve",
    ],
)
def test_a_command_outside_of_a_project_says_so_and_makes_nothing(outside, command):
    error = CliRunner().invoke(app, command.split()).exception
    assert isinstance(error, PipelineError)
    assert f"{outside} is in no project" in str(error)
    assert [path.name for path in outside.iterdir()] == ["image.png"]


def test_what_it_says_is_one_line(outside):
    done = runner(outside, PYTHONPATH=str(ROOT))("pipeline", "report", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {outside} is in no project")
    assert done.stderr.count("\n") == 1
