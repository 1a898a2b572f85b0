import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from io import BytesIO, StringIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from pipeline.artifacts.files import dvc_md5
from pipeline.artifacts.validation import ValidationReport
from pipeline.data.ingest import ingest
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import ParamsError, ValidationFailed
from pipeline.params.params import load_params
from pipeline.validation.limits import Limits
from pipeline.validation.validate import FILES_NAMED, render, validate
from tests import images
from tests.conftest import ROOT
from tests.raw import TRAIN, raw_dataset

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def leaked(x, y, files):
    x[TRAIN : TRAIN + 20], y[TRAIN : TRAIN + 20] = x[:20], y[:20]
    files.loc[0, "file"] = "zero\n[red].png"


def brighter(x, y, files):
    x[:] = np.where(x < 100, 100, x)


def run(folder, damage=None, limits=None, name="out"):
    raw = raw_dataset(folder / name, damage)
    return validate(raw, limits or {}, folder / name, folder / "accepted.json")


def test_sound_data_pass_and_are_remembered(tmp_path):
    report = run(tmp_path)
    assert report.passed
    assert report == ValidationReport.load(tmp_path / "out" / "summary.json")
    assert report.raw_md5 == dvc_md5(tmp_path / "out" / "raw")
    made = {file.name for file in (tmp_path / "out").iterdir()}
    assert made == {"raw", "manifest.parquet", "data_docs", "summary.json"}
    assert (tmp_path / "accepted.json").exists()


def test_a_validation_split_of_the_source_is_checked_too(tmp_path):
    content: dict[str, bytes] = {}
    for number, split in enumerate(("train", "val", "test")):
        content |= {
            f"{split}/{name}": images.encode(seed=100 * number + seed)
            for seed, name in enumerate(("cat/p1_a.png", "cat/p2_a.png", "dog/p3_a.png"))
        }
    picture = Image.open(BytesIO(images.encode(seed=2)))
    content["val/dog/p9_b.png"] = images.save(picture.point(lambda value: value * 0.9 + 10))
    content["train/dog/p9_b.png"] = images.encode(seed=77)
    entry = ImageFolder(
        source=str(images.write(tmp_path / "pets", content)),
        image_size=(12, 12),
        group="(?P<group>p9|[^/]+_a)",
    )
    raw = ingest(DatasetPlan(name="pets", entry=entry), tmp_path / "raw")
    limits = {"near_duplicates": Limits(error=0), "group_leakage": Limits(error=0)}
    with pytest.raises(ValidationFailed) as failed:
        validate(raw, limits, tmp_path / "out", tmp_path / "accepted.json")
    failures = ValidationReport.load(tmp_path / "out" / "summary.json").failures("error")
    assert {failure.check for failure in failures} == {"near_duplicates", "group_leakage"}
    assert "val/dog/p9_b.png ~ train/dog/p3_a.png" in str(failed.value)
    assert "val/dog/p9_b.png of group p9" in str(failed.value)


def test_equal_data_make_equal_files(tmp_path):
    def contents():
        files = (file for file in tmp_path.rglob("*") if file.is_file())
        return {file: file.read_bytes() for file in files}

    run(tmp_path)
    before = contents()
    run(tmp_path)
    assert contents() == before


def test_a_failure_names_checks_numbers_and_the_first_files_on_one_line(tmp_path):
    with pytest.raises(ValidationFailed) as caught:
        run(tmp_path, leaked)
    message = str(caught.value)
    assert "\n" not in message
    assert "leakage: 5.56%, at most 1% allowed" in message
    assert "test/1437.png = train/zero [red].png" in message
    assert message.count("test/") == FILES_NAMED
    assert not ValidationReport.load(tmp_path / "out" / "summary.json").passed
    assert (tmp_path / "out" / "data_docs" / "index.html").exists()
    assert not (tmp_path / "accepted.json").exists()


def test_a_warning_stops_nothing_and_is_shown(tmp_path):
    report = run(tmp_path, leaked, {"leakage": Limits(warning=0)})
    assert report.passed
    assert [result.check for result in report.failures("warning")] == ["leakage"]
    shown = StringIO()
    Console(file=shown, width=160).print(render(report))
    text = shown.getvalue()
    assert "warnings: 1" in text
    assert re.search(r"leakage +│ warning │ 5.56%", text)
    assert "[red].png" in text


def test_shift_is_held_against_the_version_before(tmp_path):
    first = run(tmp_path)
    assert "no earlier version" in first.results[-1].message
    kept = (tmp_path / "accepted.json").read_bytes()
    with pytest.raises(ValidationFailed, match=r"shift: .*, at most 10% allowed"):
        run(tmp_path, brighter, name="second")
    assert (tmp_path / "accepted.json").read_bytes() == kept

    allowed = {"shift": Limits(warning=0.02)}
    second = run(tmp_path, brighter, allowed, name="second")
    assert [result.check for result in second.failures("warning")] == ["shift"]
    assert run(tmp_path, brighter, allowed, name="second") == second
    assert run(tmp_path).results == first.results


def test_an_unknown_check_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ParamsError, match=r"validation\.sharpness: unknown check"):
        run(tmp_path, limits={"sharpness": Limits(error=0)})
    assert not (tmp_path / "out" / "summary.json").exists()


class References(HTMLParser):
    """Collect what a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        if tag in {"script", "link", "img", "iframe", "object", "embed", "base"}:
            self.found.append((tag, names))
        self.found += [(tag, k, v) for k, v in attrs if k in {"src", "srcset"} or k[:2] == "on"]
        if not (names.get("href") or "#").startswith("#"):
            self.found.append((tag, names["href"]))


def test_the_data_docs_refer_to_nothing_outside(tmp_path):
    with pytest.raises(ValidationFailed):
        run(tmp_path, leaked)
    page = (tmp_path / "out" / "data_docs" / "index.html").read_text()
    references = References()
    references.feed(page)
    assert references.found == []
    assert not re.search(r"@import|url\(|https?://|[\"'=]//", page)
    assert "leakage" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_data_docs(tmp_path):
    run(tmp_path)
    page = tmp_path / "out" / "data_docs" / "index.html"
    sandbox = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}"]
    done = subprocess.run(
        [str(CHROMIUM), *sandbox, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "label_conflict" in done.stdout


@pytest.mark.mirror
@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="DATASET_MIRROR is not set")
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "cifar10_images"])
def test_the_real_datasets_pass_unforced_and_in_time(name, tmp_path):
    params = load_params(ROOT / "params.yaml")
    plan = DatasetPlan(name=name, entry=params.datasets.get(name))
    raw = ingest(plan, tmp_path / "raw")
    start = time.monotonic()
    report = validate(raw, params.validation, tmp_path / "out", tmp_path / "accepted.json")
    assert time.monotonic() - start < 20
    assert report.passed
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    again = manifest["near_duplicate_of"]
    repeated = int(((again >= 0) & (again != manifest.index)).sum())
    assert repeated == {"fashion_mnist": 59, "mnist": 21, "cifar10_images": 0}[name]
    if name == "fashion_mnist":
        twins = manifest.loc[[56004, 60000 + 9867]]
        assert list(twins["file"]) == ["train/56004", "test/09867"]
        assert twins["near_duplicate_of"].nunique() == 1
        assert (twins["near_duplicate_of"] >= 0).all()


def test_images_that_ingest_could_not_decode_are_named(tmp_path):
    content = images.files(count=25)
    whole = content["dog/1.png"]
    broken = {f"dog/cut {number}, x.png": whole[: 80 + number] for number in range(28)}
    broken |= {"cat/text.jpg": b"no image", "cat/empty.png": b""}
    folder = images.write(tmp_path / "pets", {**content, **broken})
    entry = ImageFolder(source=str(folder), image_size=(8, 8))
    raw = ingest(DatasetPlan(name="pets", entry=entry), tmp_path / "raw")
    out = tmp_path / "out"
    with pytest.raises(ValidationFailed) as caught:
        validate(raw, {}, out, tmp_path / "accepted.json")
    message = str(caught.value)
    assert "readable: 37.5%" in message
    assert sum(name in message for name in broken) == FILES_NAMED
    assert f"all unreadable images are in {out / 'unreadable.csv'}" in message
    named = pd.read_csv(out / "unreadable.csv").set_index("file")
    assert set(named.index) == set(broken)
    assert named["error"]["cat/empty.png"] == "the file is empty"
    assert named["class_name"]["cat/empty.png"] == "cat"
    assert not (tmp_path / "accepted.json").exists()
    validate(raw, {"readable": Limits(error=0.5)}, out, tmp_path / "accepted.json")
    assert (out / "unreadable.csv").exists()
