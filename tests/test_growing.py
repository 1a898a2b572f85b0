"""A dataset of own images that grows, run by DVC: shards survive although DVC removes outputs."""

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.artifacts.datasets import RawDataset
from pipeline.artifacts.files import dvc_md5
from tests.conftest import Run, clone, runner
from tests.images import encode, files, write

ENTRY = {"source": "data/own/pets", "image_size": [16, 16], "recipes": "digits"}


def own_dataset(folder: Path) -> Run:
    """Make 40 images the dataset of a clone."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["dataset"], params["datasets"]["pets"] = "pets", ENTRY
    params["models"] = ["dense"]
    params["preprocess"]["validation_fraction"] = 0.2
    yaml.dump(params, folder / "params.yaml")
    write(folder / "data/own/pets", files(count=20))
    return runner(folder, DATASET_CACHE=str(folder.parent / "cache"))


def names(folder: Path) -> list[str]:
    return [shard.name for shard in RawDataset(folder / "data/raw/pets").shards.shards]


def grow(run: Run, folder: Path, seed: int, stage: str = "ingest") -> list[str]:
    write(folder / "data/own/pets", {f"cat/new{seed}.png": encode(seed=seed)})
    run("dvc", "repro", stage)
    return names(folder)


def cached(folder: Path) -> dict[str, int]:
    objects = (folder / ".dvc/cache/files/md5").rglob("*")
    return {path.name: path.stat().st_size for path in objects if path.is_file()}


def test_a_clone_goes_on_from_the_shards_that_it_pulled(tmp_path):
    here, other = clone(tmp_path / "here"), tmp_path / "other"
    run = own_dataset(here)
    run("dvc", "repro", "ingest")
    (first,) = names(here)
    run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run("git", "add", "-A")
    run("git", "commit", "-qm", "pets")
    run("dvc", "push")
    run("git", "clone", "-q", str(here), str(other))
    shutil.copytree(here / "data/own", other / "data/own", dirs_exist_ok=True)
    second = runner(other, DATASET_CACHE=str(tmp_path / "second_cache"))
    # Links to the cache, which must never be written to.
    second("dvc", "config", "--local", "cache.type", "hardlink")
    second("dvc", "pull", "resolve", "ingest")
    before = cached(other)
    assert grow(second, other, 900)[0] == first
    new = [size for name, size in cached(other).items() if name not in before]
    shard = other / "data/raw/pets" / first
    assert max(new) < shard.stat().st_size == before[dvc_md5(shard)[2:]]
    assert shard.stat().st_nlink > 1


@pytest.mark.long
def test_a_model_is_trained_from_shards_and_registered(tmp_path):
    here = clone(tmp_path / "here")
    run = own_dataset(here)
    run("dvc", "repro")
    (first,) = names(here)
    assert grow(run, here, 900, "register")[0] == first
    registered = json.loads((here / "reports/pets/registered.json").read_text())
    assert registered["version"] == 2
    assert not list((here / "data/processed/pets").glob("x_*"))
    assert run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
