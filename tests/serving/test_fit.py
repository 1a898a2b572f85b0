"""A photo that is not square: training, the served model and `pipeline predict` see it alike."""

import base64
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts.models import RunInfo
from pipeline.data.ingest import ingest
from pipeline.data.preprocess import preprocess
from pipeline.data.settings import DatasetPlan, ImageFolder, Preprocess
from pipeline.registry import model_files, versions
from pipeline.serving.predict import predict
from tests.evaluated import made
from tests.images import files, save, write
from tests.tiny import IMAGE_SHAPE, tiny_validation

__all__ = ["made"]

FITS = ("crop", "pad", "stretch")


@pytest.fixture
def photo(tmp_path):
    """Write a photo three times as wide as high, bright in its left third."""
    pixels = np.random.default_rng(3).integers(0, 60, (30, 90, 3), np.uint8)
    pixels[:, :30] += 180
    content = files(count=6) | {"cat/photo.png": save(Image.fromarray(pixels))}
    return write(tmp_path / "pets", content) / "cat" / "photo.png"


def ingested(photo: Path, fit: str, folder: Path) -> np.ndarray:
    """Return the array that ingest makes of the photo."""
    given = {"source": str(photo.parents[1]), "image_size": IMAGE_SHAPE[:2], "color": "gray"}
    entry = ImageFolder.model_validate({**given, "fit": fit})
    raw = ingest(DatasetPlan(name="pets", entry=entry), folder / "raw", progress=False)
    report = tiny_validation().model_copy(update={"raw_md5": raw.md5})
    splits = preprocess(raw, report, Preprocess(), folder / "processed", folder / "samples.png")
    assert splits.info.fit == fit  # which training writes into the run's file
    table = pd.read_parquet(raw.files)
    rows = table[table["file"] == "cat/photo.png"]
    split = rows["split"].iloc[0]
    number = table[table["split"] == split]["file"].tolist().index("cat/photo.png")
    return np.asarray(raw.x(split)[number])


def test_a_model_sees_a_photo_as_it_was_trained_on_it(made, photo, tmp_path):
    seen = {fit: ingested(photo, fit, tmp_path / fit) for fit in FITS}
    assert len({array.tobytes() for array in seen.values()}) == len(FITS)
    registered = model_files.fetch(versions.find("tiny/1")).parent
    for fit in FITS:
        model = Path(shutil.copytree(registered, tmp_path / "model" / fit))
        (run,) = model.rglob("run.json")
        run.write_text(json.dumps(json.loads(run.read_text()) | {"fit": fit}))
        assert RunInfo.load(run).fit == fit
        served = mlflow.pyfunc.load_model(str(model))
        data = photo.read_bytes()
        expected, *answers = (
            served.predict(pd.DataFrame({"image": [value]}))["probabilities"][0]
            for value in (seen[fit], base64.b64encode(data).decode(), data)
        )
        assert answers == [expected, expected]
        (row,) = predict([photo], str(run.parent), top=4)
        shown = dict(row.classes)
        names = RunInfo.load(run).class_names
        assert [shown[name] for name in names] == pytest.approx(expected, abs=1e-6)
