"""A tiny dataset with a recipe that learns it in a second, and a store of its own."""

import functools
import hashlib
import subprocess

import numpy as np
import pytest

from pipeline.artifacts.datasets import Splits, SplitsInfo
from pipeline.artifacts.files import write_array
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.models.plan import ModelPlan
from pipeline.models.recipes import Recipe
from pipeline.production import register as stage
from pipeline.reports import card

# As the command line runs it.
register = functools.partial(stage.register, publish=card.publish)
CLASS_NAMES = ("dark", "bright", "left $", "right")
IMAGE_SHAPE = (8, 8, 1)


def images_of(labels, seed):
    """Draw noise that is dark or bright all over, or bright on one side."""
    noise = np.random.default_rng(seed).integers(0, 60, (len(labels), *IMAGE_SHAPE))
    for image, label in zip(noise, labels, strict=True):
        image[:, slice(0, 4) if label == 2 else slice(4, 8) if label == 3 else slice(0, 8)] += (
            0 if label == 0 else 180
        )
    return noise.astype(np.uint8)


def contents_of(images):
    """Return what tells images from each other, as known datasets have it."""
    return (
        np.array([hashlib.sha256(x.tobytes()).digest()[:8] for x in images])
        .view(">u8")
        .astype(np.uint64)
    )


def tiny_splits(folder, name="tiny", seed=0):
    """Write a dataset of 64, 32 and 32 images; another seed, other images."""
    splits = Splits(folder)
    counts = {"train": 64, "val": 32, "test": 32}
    md5 = {}
    for number, (split, count) in enumerate(counts.items(), start=seed):
        y = np.arange(count) % len(CLASS_NAMES)
        if split == "test":
            y[:3] = (y[:3] + 1) % len(CLASS_NAMES)  # labels that no model can guess
        x = images_of(np.arange(count) % len(CLASS_NAMES), number)
        splits.save_split(split, x, y)  # type: ignore[arg-type]
        write_array(folder / f"content_{split}.npy", contents_of(x))
        for array in ("x", "y"):
            content = (folder / f"{array}_{split}.npy").read_bytes()
            md5[f"{array}_{split}.npy"] = hashlib.md5(content).hexdigest()
    SplitsInfo(
        name=name,
        class_names=CLASS_NAMES,
        image_shape=IMAGE_SHAPE,
        counts=counts,
        md5=md5,
        raw_md5="0" * 32 + ".dir",
        warnings=(),
        origin=({"file": "tiny", "from": "made up", "sha256": "0" * 64},),
    ).save(folder / "metadata.json")
    return splits


def tiny_plan(model="dense", dataset="tiny", **recipe):
    """Plan a dense model; `recipe` changes what is said of it."""
    content = {"layers": ["flatten", {"dense": 16}], "epochs": 8, "batch_size": 8, "seed": 0}
    content["optimizer"] = {"name": "adam", "learning_rate": 0.01}
    return ModelPlan(dataset=dataset, model=model, recipe=Recipe.model_validate(content | recipe))


def tiny_project(folder):
    """Make the folder what a passport tells of: a commit, params.yaml, a lock file, dvc.lock."""
    (folder / "params.yaml").write_text("dataset: tiny\nmodels: [dense]\n")
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (folder / "requirements").mkdir(parents=True)
    (folder / "requirements" / "run.txt").write_text("keras==3.15.1\n")
    (folder / ".gitignore").write_text("*\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q", "-b", "work"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)


def tiny_validation():
    """Return a report of a dataset that passed."""
    row = CheckResult(
        check="readable", severity="error", passed=True, observed=0, limit=0, message="all are read"
    )
    return ValidationReport(dataset="tiny", raw_md5="0" * 32 + ".dir", results=(row,))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Work in a project with nothing in it, in which a new store will be."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path
