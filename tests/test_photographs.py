"""Own photographs and a backbone, by the command line: features are computed once per image."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image
from ruamel.yaml import YAML

from pipeline.artifacts.datasets import Splits
from tests.conftest import Run, clone, runner
from tests.images import save, write

OWN = Path("data/own/flowers")
HEAD = "recipes.default.pretrained"
TRAIN = "train@pretrained"


def photograph(label: int, seed: int) -> bytes:
    """Return noise, reddish or bluish by its class."""
    pixels = np.random.default_rng(seed).integers(0, 100, (60, 80, 3), np.uint8)
    pixels[..., 2 * label] += 150
    return save(Image.fromarray(pixels))


def add(folder: Path, groups: range) -> None:
    """Write the table with three images more of each group."""
    rows = [(f"{n}-{v}.png", ("rose", "iris")[n % 2], n) for n in groups for v in range(3)]
    content = {file: photograph(n % 2, 1000 + 3 * n + i % 3) for i, (file, _, n) in enumerate(rows)}
    write(folder / OWN / "photos", content)
    table = folder / OWN / "labels.csv"
    with table.open("a", newline="") as file:
        if not file.tell():
            csv.writer(file).writerow(["file", "label", "plant"])
        csv.writer(file).writerows((f"photos/{name}", label, n) for name, label, n in rows)


def prepared(folder: Path) -> Run:
    """Return what runs commands in a clone whose dataset are the photographs."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["dataset"], params["models"] = "flowers", ["pretrained"]
    params["datasets"]["flowers"] = {
        "source": str(OWN / "labels.csv"),
        "image_size": [64, 64],
        "columns": {"group": "plant"},
    }
    params["preprocess"]["validation_fraction"] = 0.2
    yaml.dump(params, folder / "params.yaml")
    run = runner(folder, DATASET_CACHE=str(folder.parent / "cache"))
    run("git", "commit", "-qam", "flowers")
    return run


def trained_on(folder: Path) -> int:
    """Return how many images a training sees, those that it is validated on included."""
    splits = Splits(folder / "data/processed/flowers")
    return len(splits.y("train")) + len(splits.y("val"))


def run_info(folder: Path) -> dict[str, str]:
    file = folder / "models/flowers/pretrained/run.json"
    content: dict[str, str] = json.loads(file.read_text())
    return content


def computed(folder: Path) -> float:
    """Return of how many images the last training computed features."""
    uri = f"sqlite:///{folder}/mlflow.db"
    run = MlflowClient(uri, uri).get_run(run_info(folder)["run_id"])
    return float(run.data.metrics["features_computed"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_another_head_computes_no_features_and_new_images_only_theirs(tmp_path):
    folder = clone(tmp_path / "clone")
    run = prepared(folder)
    add(folder, range(30))
    run("dvc", "repro")
    first = trained_on(folder)
    assert computed(folder) == first
    files = pd.read_parquet(folder / "data/raw/flowers/files.parquet")
    plants = files["file"].str.extract(r"(\d+)-\d\.png")[0]
    assert files["split"].groupby(plants).nunique().eq(1).all()
    assert 0 < (files["split"] == "test").sum() < 90

    images = [str(OWN / f"photos/{n}-0.png") for n in (0, 1)]
    registered = json.loads((folder / "reports/flowers/registered.json").read_text())
    model = f"flowers/{registered['version']}"
    said = json.loads(run("pipeline", "predict", *images, "--model", model, "--json").stdout)
    assert [row["classes"][0]["class_name"] for row in said] == ["rose", "iris"]

    before = run_info(folder)
    heads = (
        [f"{HEAD}.optimizer={{name: lbfgs, l2: 0.1}}"],
        [
            f"{HEAD}.layers=[{{backbone: efficientnet_lite0}}, {{dropout: 0.3}}, {{dense: 8}}]",
            f"{HEAD}.optimizer=adam",
            f"{HEAD}.epochs=3",
        ],
    )
    for head in heads:
        run("dvc", "exp", "run", TRAIN, *(part for change in head for part in ("-S", change)))
        after = run_info(folder)
        assert after["run_id"] != before["run_id"]
        assert after["model_sha256"] != before["model_sha256"]
        assert computed(folder) == 0
        before = after

    add(folder, range(30, 40))
    run("dvc", "repro", TRAIN)
    assert computed(folder) == trained_on(folder) - first > 0
