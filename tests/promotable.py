"""A poor model that serves, a good one and its like with another seed, restored for each test."""

import shutil
from functools import cache
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.cli import app
from pipeline.evaluation.evaluate import evaluate
from pipeline.production.promote import promote
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger_run import ledger_of
from pipeline.registry.passport import Passport
from pipeline.tracking.store import connect
from pipeline.training.train import train
from tests.tiny import register, tiny_plan, tiny_project, tiny_splits, tiny_validation

# What the tests run the command line with.
PARAMS = """
dataset: tiny
models: [dense]
promotion: {margin: 0.005}
recipes: {tiny: {dense: {layers: [flatten], epochs: 1}}}
"""
RECIPES = {
    "short": tiny_plan("short", epochs=1, optimizer={"name": "sgd", "learning_rate": 0.0001}),
    "dense": tiny_plan("dense"),
    "reseed": tiny_plan("dense", seed=3),
}


@pytest.fixture
def here(tmp_path_factory, monkeypatch):
    """Work in a project whose poor model is version 1, in production."""
    return restored(tmp_path_factory.getbasetemp(), "one", monkeypatch)


@pytest.fixture
def two(tmp_path_factory, monkeypatch):
    """Work in the same project with the good model as version 2, the challenger."""
    return restored(tmp_path_factory.getbasetemp(), "two", monkeypatch)


def restored(base, name, patch):
    """Put the project back as it was made; at the same path, as MLflow stores full paths."""
    made = base / "promotable"
    make(made)
    shutil.rmtree(made / "project")
    shutil.copytree(made / name, made / "project")
    work_in(made / "project", patch)
    return project(made / "project")


@cache
def make(base):
    """Train the three models, register the first two, and keep a copy after each."""
    folder = base / "project"
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        tiny_project(folder)
        (folder / "params.yaml").write_text(PARAMS)
        splits = tiny_splits(folder / "data/processed/tiny")
        for name, plan in RECIPES.items():
            trained = train(splits, plan, folder / name, device="cpu")
            evaluate(trained, splits, folder / "evaluation" / name)
        project(folder).add("short", auto_promote=True)
        shutil.copytree(folder, base / "one")
        project(folder).add("dense")
        shutil.copytree(folder, base / "two")


def work_in(folder, patch):
    """Work in a folder whose store may be replaced: no connection to it is kept open."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def project(folder):
    """Return a project, with a function that registers one more of the models."""
    splits = Splits(folder / "data/processed/tiny")

    def add(name, thresholds=None, auto_promote=False):
        trained, evaluation = TrainedModel(folder / name), Evaluation(folder / "evaluation" / name)
        return register(
            {RECIPES[name].model: (trained, evaluation)},
            splits,
            tiny_validation(),
            thresholds or Thresholds(),
            folder / "registered.json",
            auto_promote,
        )

    return SimpleNamespace(folder=folder, splits=splits, add=add)


def state():
    """Return what must not change where something goes wrong."""
    entries = ledger_of("tiny").entries()
    return versions.alias_holders("tiny"), entries


def ask(number, here, thresholds=None, **more):
    version = versions.find(f"tiny/{number}")
    return promote(version, here.splits, thresholds or Thresholds(), **more)


def run(*command):
    return CliRunner().invoke(app, list(command))


def files_of(number):
    return model_files.fetch(versions.find(f"tiny/{number}"))


def without_record(number):
    """Make a version one of before the images were recorded."""
    folder = files_of(number)
    (folder / "images.npz").unlink()
    passport = Passport.load(folder / "passport.json").model_copy(update={"images_sha256": ""})
    passport.save(folder / "passport.json")
    client, text = connect(), str(number)
    client.delete_model_version_tag("tiny", text, "images_sha256")
    found = sha256(folder / "passport.json")
    client.set_model_version_tag("tiny", text, "passport_sha256", found)


def damage_model(here):
    with (files_of(2) / "model.keras").open("ab") as file:
        file.write(b"x")
