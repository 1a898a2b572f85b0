"""Names of classes and files as people have them, in figures and on the terminal."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.data.ingest import ingest
from pipeline.data.layout import LONGEST_NAME, layout
from pipeline.data.readers.listing import list_images
from pipeline.data.readers.reader import Entry
from pipeline.data.samples import save_samples
from pipeline.data.settings import DatasetPlan, ImageFolder
from pipeline.errors import DatasetError
from pipeline.evaluation.figures import draw_confusion
from pipeline.serving.predict import Prediction, as_lines, find_images, render
from tests.images import encode, files, make_tar, write

NAMES = ("$10_$20", "ca$$h", "$5-$10", "_x^2_", "日本語", "🌷", "rose [red]")


def test_figures_take_every_name(tmp_path, capsys):
    counts = np.eye(len(NAMES), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(tmp_path / "confusion.png", counts, NAMES, normalised=False)
        images = np.zeros((len(NAMES), 4, 4, 3), np.uint8)
        save_samples(images, np.arange(len(NAMES)), NAMES, tmp_path / "samples.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    # Said once at most, and not by eighteen warnings.
    assert capsys.readouterr().err.count("\n") <= 1


def test_the_terminal_shows_names_as_they_are():
    rows = [
        Prediction("photo [copy].png", (("rose [red]", 0.75),)),
        Prediction("[/bold].png", error="no [image]"),
    ]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(render(rows))
    shown = console.export_text()
    for word in ("photo [copy].png", "rose [red]", "[/bold].png", "no [image]"):
        assert word in shown


def test_other_programs_get_whole_names_and_tabs():
    long = f"{'folder/' * 40}photo.png"
    lines = as_lines(
        [Prediction(long, (("rose", 0.75), ("tulip", 0.25))), Prediction("x", error="cut")]
    )
    assert lines[0].split("\t") == ["image", "class", "probability"]
    assert lines[1].split("\t") == [long, "rose", "0.750000"]
    assert lines[3].split("\t") == ["x", "error: cut", ""]


def test_predict_ignores_what_ingest_ignores(tmp_path):
    photos = {
        "a.png": encode(),
        "x.jpg/b.JPG": encode(suffix=".jpg"),
        ".ipynb_checkpoints/a-checkpoint.png": encode(),
        "latin\udce4.png": encode(),
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg": encode(suffix=".jpg"),
        "__MACOSX/._a.png": b"of no use",
    }
    folder = write(tmp_path / "photos", photos)
    found = find_images([folder])
    assert found == [folder / "a.png", folder / "latin\udce4.png", folder / "x.jpg" / "b.JPG"]
    assert all(path.exists() for path in found)
    assert find_images([Path(folder / ".ipynb_checkpoints" / "a-checkpoint.png")])


def test_a_name_that_mlflow_cannot_take_is_refused_before_training():
    entries = [Entry(f"{name}/1.png", encode) for name in ("a", "b" * (LONGEST_NAME + 1))]
    with pytest.raises(
        DatasetError, match=f"{LONGEST_NAME + 1} characters long; allowed: {LONGEST_NAME}"
    ):
        layout(list_images(entries))


@pytest.mark.parametrize("make", [write, make_tar])
def test_a_name_that_is_not_utf8_is_shown_by_its_bytes(tmp_path, make):
    content = {**files(("cat", "b\udce4r"), count=4), "cat/\udcff.png": encode(seed=900)}
    source = make(tmp_path / "pets", content)
    entry = ImageFolder(source=str(source), image_size=(8, 8))
    raw = ingest(DatasetPlan(name="pets", entry=entry), tmp_path / "raw", progress=False)
    assert raw.info.class_names == (r"b\xe4r", "cat")
    table = pd.read_parquet(raw.files)
    assert r"cat/\xff.png" in set(table["file"])
    assert set(table["error"]) == {""}
