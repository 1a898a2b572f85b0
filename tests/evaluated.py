"""Two tiny models, trained, evaluated and the better one registered; made once for all tests."""

import base64
import io
import shutil
from functools import cache
from types import SimpleNamespace

import pytest
from PIL import Image

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.evaluation.evaluate import evaluate
from pipeline.production.rules import Thresholds
from pipeline.tracking.store import connect
from pipeline.training.train import train
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

VALIDATION = tiny_validation()
HALF = Thresholds(floors={"accuracy": 0.5})


@cache
def make(folder):
    """Train, evaluate and register in a folder of its own."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tiny_project(folder)
        splits = tiny_splits(folder / "data")
        models = {}
        for name, epochs in (("dense", 8), ("short", 1)):
            trained = train(splits, tiny_plan(name, epochs=epochs), folder / name, device="cpu")
            models[name] = trained, evaluate(trained, splits, folder / "evaluation" / name)
        version = register(models, splits, VALIDATION, HALF, folder / "registered.json")
    return SimpleNamespace(folder=folder, splits=splits, models=models, version=version)


@pytest.fixture
def made(tmp_path_factory, monkeypatch):
    """Work where it was made; leave it as it is."""
    done = make(tmp_path_factory.getbasetemp() / "evaluated")
    monkeypatch.chdir(done.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return done


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """Return a copy of everything, with a store that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to the store in use
    models = {
        name: (TrainedModel(folder / name), Evaluation(folder / "evaluation" / name))
        for name in made.models
    }
    return SimpleNamespace(folder=folder, splits=Splits(folder / "data"), models=models)


def png(image, size=None):
    picture = Image.fromarray(image.squeeze())
    buffer = io.BytesIO()
    (picture.resize(size) if size else picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def another_store(copy, monkeypatch):
    """Leave the files as they are, and track into a store that knows nothing of them."""
    (copy.folder / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.folder}/elsewhere/mlflow.db")
    return connect()
