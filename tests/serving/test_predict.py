"""Predictions for files, by a registered model or one of a folder."""

import json

import pytest
from PIL import Image

from pipeline.errors import ImageError, TrackingError
from pipeline.serving.predict import as_json, predict
from tests.evaluated import made
from tests.tiny import images_of

__all__ = ["made"]


@pytest.fixture
def pictures(tmp_path):
    """Write a folder of images of several kinds."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name, label in (("bright.png", 1), ("deep/left.jpg", 2)):
        picture = Image.fromarray(images_of([label], 5)[0].squeeze()).resize((64, 64))
        picture.convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize("model", ["tiny@production", "tiny/1", "dense", "dense/model.tflite"])
def test_predict_by_alias_version_and_path(made, pictures, model):
    rows = predict([pictures], model, top=2)
    assert [row.classes[0][0] for row in rows] == ["bright", "left $"]
    assert all(len(row.classes) == 2 for row in rows)
    assert json.loads(json.dumps(as_json(rows)))[0]["classes"][0]["class_name"] == "bright"


def test_a_broken_image_stops_no_other(made, pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = predict([pictures / "broken.png", pictures / "bright.png"], "dense", top=1)
    assert rows[0].error
    assert rows[0].classes == ()
    assert rows[1].classes[0][0] == "bright"


@pytest.mark.parametrize("model", ["tiny@nobody", "tiny/7", "tinny@production", "tiny/x"])
def test_an_unknown_model_is_answered_with_those_there_are(made, pictures, model):
    with pytest.raises(TrackingError, match=r"there are: .*tiny"):
        predict([pictures], model, top=1)


def test_an_image_that_is_not_there(made, tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        predict([tmp_path / "none.png"], "dense", top=1)
