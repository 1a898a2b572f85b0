"""A tiny dataset with a recipe that learns it in a second, and a store of its own."""

import hashlib

import numpy as np
import pytest

from pipeline.artifacts import ModelPlan, Splits, SplitsInfo
from pipeline.recipes import Recipe

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


def tiny_splits(folder, name="tiny"):
    """Write a dataset of 64, 32 and 32 images."""
    splits = Splits(folder)
    counts = {"train": 64, "val": 32, "test": 32}
    md5 = {}
    for seed, (split, count) in enumerate(counts.items()):
        y = np.arange(count) % len(CLASS_NAMES)
        if split == "test":
            y[:3] = (y[:3] + 1) % len(CLASS_NAMES)  # labels that no model can guess
        x = images_of(np.arange(count) % len(CLASS_NAMES), seed)
        splits.save_split(split, x, y)  # type: ignore[arg-type]
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
    ).save(folder / "metadata.json")
    return splits


def tiny_plan(model="dense", dataset="tiny", **recipe):
    """Plan a dense model; `recipe` changes what is said of it."""
    content = {"layers": ["flatten", {"dense": 16}], "epochs": 8, "batch_size": 8, "seed": 0}
    content["optimizer"] = {"name": "adam", "learning_rate": 0.01}
    return ModelPlan(dataset=dataset, model=model, recipe=Recipe.model_validate(content | recipe))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Work in an empty folder, in which a new store will be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path
