"""The story of a dataset, and where an image is, with a real store of two versions."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import ArtifactError
from pipeline.registry import model_files
from pipeline.reports.dataset.facts import gather
from pipeline.reports.dataset.pictures import pictures
from pipeline.reports.dataset.source import state_of_source
from pipeline.tracking.store import connect
from pipeline.validation.validate import validate
from pipeline.workspace import Workspace
from tests.images import encode, files, save, write
from tests.ingested import ingested, picture
from tests.page import Page
from tests.promotable import run, two
from tests.tiny import images_of

__all__ = ["two"]


def told(*arguments):
    done = run("data", "tiny", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_dataset_says_what_changed_since_each_version(two):
    ingested(two, gone=2, more=3)
    found = told()
    assert found["images"] == 64 + 32 + 32 - 2 + 3
    assert [(row["version"], row["added"], row["removed"]) for row in found["versions"]] == [
        (2, 3, 2),
        (1, 3, 2),
    ]
    assert found["versions"][1]["aliases"] == ["production"]
    assert sum(sum(row.values()) for row in found["classes"].values()) == found["images"]
    assert found["stored_with"] == []
    assert "known dataset" in found["source"]
    text = run("data").stdout
    assert "127 images" not in text
    assert re.search(r"1 production +3 +2", text)


def test_the_page_is_stored_with_the_versions_that_know_these_images(two, monkeypatch):
    ingested(two)
    found = told("--output", "story.html")
    assert found["stored_with"] == [2, 1]
    page = (two.folder / "story.html").read_text()
    run_id = found["versions"][0]["run_id"]
    stored = connect().list_artifacts(run_id, "dataset")
    assert [file.path for file in stored] == ["dataset/dataset.html"]
    shown = Page(page)
    assert {"script", "link", "iframe"}.isdisjoint(shown.tags)
    assert all(target.startswith("data:image/") for target in shown.targets)
    for words in ("left $", "Largest", "Smallest", "Brightest", "Darkest", "near_duplicates"):
        assert words in shown.text
    monkeypatch.setattr(model_files, "read_images", lambda version: None)
    assert told("--no-track")["versions"][0]["added"] is None


def test_without_a_validation_it_says_what_to_run(two):
    done = run("data", "tiny")
    assert isinstance(done.exception, ArtifactError)
    assert "run dvc repro validate" in str(done.exception)


@pytest.fixture
def pets(two):
    """Ingest and check a folder with a near-duplicate in two splits."""
    content = files(("<b>cat", "dog"), prefix="train/") | files(
        ("<b>cat", "dog"), prefix="test/", suffix=".bmp"
    )
    for number, name in enumerate(sorted(content)):
        content[name] = encode(seed=number)
    again = Image.fromarray(images_of([2], 5)[0, ..., 0].repeat(4, 0).repeat(4, 1))
    content["train/dog/7.png"] = save(again)
    content["test/dog/7.png"] = save(again.point(lambda value: value * 0.8 + 20))
    write(two.folder / "source", content)
    entry = ImageFolder(source="source", image_size=(16, 16))
    workspace = Workspace("pets", two.folder)
    raw = ingest(DatasetPlan(name="pets", entry=entry), workspace.raw.path)
    validate(raw, {}, workspace.validation, workspace.accepted)
    return workspace


def test_near_duplicates_stand_side_by_side_and_names_stay_text(pets):
    facts = gather(pets)
    shown = pictures(pets.raw, facts)
    assert [(first.name, again.name) for first, again in shown.pairs] == [
        ("train/dog/7.png", "test/dog/7.png")
    ]
    assert facts.changes == ()
    done = run("data", "pets")
    assert done.exit_code == 0, done.output
    page = (pets.reports / "dataset.html").read_text()
    assert "<b>cat" not in page
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" in done.stdout


def test_a_source_is_compared_with_what_was_ingested(pets):
    assert state_of_source(pets.raw).startswith("source: it has not changed since")
    (pets.root / "source/train/dog/9.png").write_bytes(encode(seed=9))
    (pets.root / "source/train/dog/0.png").unlink()
    written = pets.root / "source/train/dog/1.png"
    written.write_bytes(encode(seed=8))
    state = state_of_source(pets.raw)
    assert "1 files new, 1 files gone, 1 files written since" in state
    shutil.rmtree(pets.root / "source")
    assert "not found from here, not known whether it changed" in state_of_source(pets.raw)


def traced(*arguments, found=True):
    done = run("trace", "--json", *map(str, arguments))
    assert done.exit_code == (0 if found else 3), done.output
    return json.loads(done.stdout)["images"]


def test_an_image_is_found_in_datasets_and_versions(two, tmp_path):
    ingested(two, gone=2, more=3)
    train, test, gone = (
        two.splits.x("train")[9],
        two.splits.x("test")[4],
        two.splits.x("train")[0],
    )
    new = images_of([0, 1, 2], 99)[1]
    brighter = np.clip(test.astype(int) + 4, 0, 255).astype(np.uint8)
    images = {"train": train, "test": test, "gone": gone, "new": new, "brighter": brighter}
    found = dict(
        zip(
            images,
            traced(*(picture(x, tmp_path / f"{name}.png") for name, x in images.items())),
            strict=True,
        )
    )
    for name, split, how in (
        ("train", "train", "the same pixels"),
        ("test", "test", "the same pixels"),
        ("new", "train", "the same pixels"),
        ("brighter", "test", "looks like it"),
    ):
        (place,) = found[name]["places"]
        assert (place["dataset"], place["split"], place["how"]) == ("tiny", split, how)
    assert found["test"]["places"][0]["file"] == found["brighter"]["places"][0]["file"]
    assert found["gone"]["places"] == []
    used = {name: [(use["version"], use["what"]) for use in found[name]["uses"]] for name in images}
    for name, what in (("train", "trained"), ("gone", "trained"), ("test", "tested")):
        assert used[name] == [(1, what), (2, what)]
    assert used["new"] == []
    assert {use["how"] for use in found["brighter"]["uses"]} == {"looks like it"}
    nowhere = tmp_path / "nowhere.png"
    nowhere.write_bytes(encode(seed=1))
    assert not traced(nowhere, found=False)[0]["found"]


def test_a_version_without_a_record_says_so(two, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "read_images", lambda version: None)
    image = picture(two.splits.x("train")[9], tmp_path / "a.png")
    (found,) = traced(image, found=False)
    assert {use["what"] for use in found["uses"]} == {"not recorded"}
    assert "not recorded" in run("trace", str(image)).stdout


def test_a_file_is_found_by_its_bytes_under_any_name(pets, tmp_path):
    copy = tmp_path / "any name.jpg"
    copy.write_bytes((pets.root / "source/test/dog/7.png").read_bytes())
    (found,) = traced(copy)
    (place,) = found["places"]
    assert (place["label"], place["file"], place["how"]) == (
        "dog",
        "test/dog/7.png",
        "the same file",
    )
    larger = tmp_path / "larger.png"
    Image.open(copy).resize((64, 64), Image.Resampling.BICUBIC).save(larger)
    assert {row["how"] for row in traced(larger)[0]["places"]} <= {
        "looks like it",
        "the same pixels",
    }
