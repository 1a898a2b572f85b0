"""A folder of images grows: the split never moves, and the gate does not call better data worse."""

import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.artifacts.datasets import Split
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import preprocess
from pipeline.data.settings import DatasetPlan, ImageFolder, Preprocess
from pipeline.evaluation.evaluate import evaluate
from pipeline.models.plan import ModelPlan
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params
from pipeline.production.decision import Decision
from pipeline.production.promote import promote
from pipeline.production.rules import Thresholds
from pipeline.registry import versions
from pipeline.training.train import train
from pipeline.validation.validate import validate
from pipeline.workspace import Workspace
from tests.conftest import ROOT
from tests.images import save, write
from tests.tiny import register, tiny_project

LAYERS: list[object] = ["flatten", {"dense": 32}]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass
class Growing:
    """A project whose images grow.

    Attributes:
        checked: whether the real checks validate the images, which takes some seconds.
    """

    workspace: Workspace
    entry: ImageFolder
    recipe: Recipe
    checked: bool

    def run(self, *, auto_promote: bool = True) -> dict[str, set[int]]:
        """Run all stages on the images as they are, and return which of them are in each split."""
        here = self.workspace
        raw = ingest(DatasetPlan(name="own", entry=self.entry), here.raw.path, progress=False)
        if self.checked:
            limits = load_params(ROOT / "params.yaml").validation
            report = validate(raw, limits, here.validation, here.accepted)
        else:
            row = CheckResult(
                check="readable", severity="error", passed=True, observed=0, limit=0, message="read"
            )
            report = ValidationReport(dataset="own", raw_md5=raw.md5, results=(row,))
        splits = preprocess(raw, report, Preprocess(), here.splits.path, here.samples)
        plan = ModelPlan(dataset="own", model="dense", recipe=self.recipe)
        trained = train(splits, plan, here.trained("dense").path, device="cpu")
        pair = trained, evaluate(trained, splits, here.evaluation("dense").path)
        path = here.registered_path
        register({"dense": pair}, splits, report, Thresholds(), path, auto_promote)
        return {split: set(splits.contents(split).tolist()) for split in SPLITS}

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last evaluation."""
        return self.workspace.evaluation("dense").metrics

    def ask(self, number: int) -> Decision:
        """Ask the gate about a version, on the test images as they are."""
        version = versions.find(f"own/{number}")
        decision = promote(version, self.workspace.splits, Thresholds(), dry_run=True).decision
        assert decision is not None
        return decision


def compared(decision: Decision) -> tuple[float, float, float]:
    """Return the accuracy of the incumbent, and the interval of the difference to it."""
    (said,) = (row.message for row in decision.answers if row.name == "not_worse")
    numbers = re.search(r"against (\S+) of version 1, .* difference (\S+) to (\S+)", said)
    assert numbers is not None, said
    old, low, high = map(float, numbers.groups())
    return old, low, high


def check_growth(project: Growing, more: dict[str, bytes]) -> Decision:
    """Run, let the images grow, run again, and ask the gate whether the new version is better."""
    before, own = project.run(), project.metrics
    write(Path(project.entry.sources[0]), more)
    after = project.run(auto_promote=False)
    for split in SPLITS:
        assert before[split] <= after[split], "no image has moved"
    assert sum(map(len, after.values())) == sum(map(len, before.values())) + len(more)
    decision = project.ask(2)
    images = decision.images
    assert images is not None
    assert (images.test, images.seen, images.seen_by_incumbent) == (len(after["test"]), 0, 0)
    assert images.left == images.test
    old, _, high = compared(decision)
    assert own["accuracy_low"] <= old <= own["accuracy_high"]
    assert high >= 0, "the better-fed one is not proven worse"
    return decision


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tiny_project(tmp_path)
    return tmp_path


@pytest.mark.long
def test_digits_that_grow(here):
    images, labels = load_digits(return_X_y=True)
    pictures = {}
    for label in range(5):
        for number, row in enumerate(images[labels == label][:63]):
            picture = Image.fromarray((row.reshape(8, 8) * 15).astype(np.uint8))
            pictures[f"{label}/{number:02}.png"] = save(picture)
    first = {name: data for name, data in pictures.items() if int(name[2:4]) < 60}
    entry = ImageFolder(
        source=str(write(here / "pictures", first)), image_size=(8, 8), color="gray"
    )
    recipe = Recipe.model_validate({"layers": LAYERS, "epochs": 4, "batch_size": 16})
    project = Growing(Workspace("own", here), entry, recipe, checked=False)
    check_growth(project, {k: v for k, v in pictures.items() if k not in first})


@pytest.mark.mirror
@pytest.mark.long
@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="needs DATASET_MIRROR")
def test_photographs_that_grow_and_a_split_that_is_drawn_anew(here):
    first: dict[str, bytes] = {}
    more: dict[str, bytes] = {}
    archive = Path(os.environ["DATASET_MIRROR"], "cifar10_images", "cifar10_images.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            split, _, name = member.name.partition("/")
            number = int(Path(name).stem) if split == "train" and member.isfile() else 10**6
            if number < 210 and (file := tar.extractfile(member)):
                (first if number < 200 else more)[name] = file.read()
    assert (len(first), len(more)) == (2000, 100)
    entry = ImageFolder(source=str(write(here / "pictures", first)), image_size=(32, 32))
    recipe = load_params(ROOT / "params.yaml").recipes["default"]["cnn"]
    project = Growing(Workspace("own", here), entry, recipe, checked=True)
    grown = check_growth(project, more)
    # As it was before: the test split is drawn anew, from what the versions were trained on.
    project.entry = entry.model_copy(update={"seed": 1})
    project.run(auto_promote=False)
    again = project.ask(2)
    assert again.images is not None
    assert again.images.left < again.images.test / 2
    low, high = (compared(grown)[0] + sign * 0.1 for sign in (-1, 1))
    assert low <= compared(again)[0] <= high, "not as if it knew them"
