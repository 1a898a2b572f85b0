"""A registered model, used as a stranger would."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from pipeline.registry import model_files, versions
from pipeline.tracking.describe import SERVING
from tests.evaluated import made, png
from tests.tiny import CLASS_NAMES, IMAGE_SHAPE, images_of

__all__ = ["made"]


@pytest.fixture
def served(made):
    return model_files.load("models:/tiny@production")


def test_pixels_and_files_give_the_same(made, served):
    images = made.splits.x("test")
    expected = made.models["dense"][1].probabilities
    table = served.predict(pd.DataFrame({"image": list(images)}))
    np.testing.assert_allclose(np.stack(table["probabilities"]), expected, atol=1e-5)
    assert table["class_name"].tolist() == [CLASS_NAMES[n] for n in table["label"]]
    texts = [png(image) for image in images]
    for given in (pd.DataFrame({"image": texts}), {"image": texts}, {"image": images}):
        answer = served.predict(given)
        assert answer["label"].tolist() == table["label"].tolist()


def test_an_image_of_any_size_is_resized(served):
    large = png(images_of([2], 0)[0], size=(300, 200))
    assert served.predict({"image": [large]})["class_name"].tolist() == ["left $"]


def test_a_server_answers_json(served):
    from mlflow.pyfunc.scoring_server import invocations  # what answers `mlflow models serve`

    image = images_of([1], 0)[0]
    text = png(image)
    bodies = [
        {"inputs": [{"image": text}, {"image": image.tolist()}]},
        {"inputs": {"image": [text, text]}},
        {"inputs": [image.tolist(), image.squeeze().tolist()]},
        {"instances": [{"image": text}, {"image": text}]},
        {"dataframe_records": [{"image": text}, {"image": image.tolist()}]},
        {"dataframe_split": {"columns": ["image"], "data": [[text], [image.tolist()]]}},
    ]
    schema = served.metadata.get_input_schema()
    for body in bodies:
        answer = invocations(json.dumps(body), "application/json", served, schema)
        rows = json.loads(answer.response)["predictions"]
        assert [row["class_name"] for row in rows] == ["bright", "bright"], str(body)[:60]
        assert sum(rows[0]["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no base64!", "base64"),
        (base64.b64encode(b"no image").decode(), "not an image"),
        (np.zeros((9, 9, 1), np.uint8), "the model takes"),
        (np.full(IMAGE_SHAPE, 0.5), "whole numbers from 0 to 255"),
        (np.full(IMAGE_SHAPE, 300), "whole numbers from 0 to 255"),
        (7, "shape"),
        (None, "image 0"),
    ],
)
def test_what_is_no_image_is_said_so(served, value, reason):
    with pytest.raises(MlflowException, match=reason):
        served.predict(pd.DataFrame({"image": pd.Series([value], dtype=object)}))


def test_it_loads_where_this_repository_is_not(made, tmp_path):
    folder = str(
        shutil.copytree(model_files.fetch(versions.find("tiny/1")).parent, tmp_path / "model")
    )
    code = (
        "import sys, mlflow\n"
        f"model = mlflow.pyfunc.load_model({folder!r})\n"
        f"print(model.predict({{'image': [{png(images_of([3], 0)[0])!r}]}})['class_name'][0])\n"
        "print(sys.modules['pipeline.images'].__file__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # -P and a finder that is cut off: an editable install would lead back to the repository.
    cut = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
    # What its requirements do not name, and MLflow does not bring, is not installed there.
    cut += "sys.modules |= dict.fromkeys(['tensorflow', 'keras', 'ruamel', 'dvc', 'typer'])\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", cut + code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, place = done.stdout.splitlines()
    assert name == "right"
    assert Path(place).is_relative_to(tmp_path)
    asked = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in asked} == set(SERVING)
