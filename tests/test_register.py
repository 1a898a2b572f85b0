"""Evaluate two tiny models, register the better one, and use it as a stranger would."""

import base64
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256, write_array
from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.errors import ArtifactError, ImageError, TrackingError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.export import TOLERANCE
from pipeline.evaluation.metric import TrainingMetric
from pipeline.evaluation.metrics import BY_NAME
from pipeline.production.rules import Thresholds
from pipeline.registry import model_files, versions
from pipeline.registry.ledger_run import ledger_of
from pipeline.serving.predict import as_json, predict
from pipeline.tracking.describe import SERVING
from pipeline.tracking.runs import existing_run, find_run
from pipeline.tracking.store import connect
from pipeline.training.train import train
from tests.tiny import (
    CLASS_NAMES,
    IMAGE_SHAPE,
    images_of,
    register,
    tiny_plan,
    tiny_project,
    tiny_splits,
    tiny_validation,
)

VALIDATION = tiny_validation()
HALF = Thresholds(floors={"accuracy": 0.5})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train, evaluate and register in a folder of its own."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tiny_project(folder)
        splits = tiny_splits(folder / "data")
        models = {}
        for name, epochs in (("dense", 8), ("short", 1)):
            trained = train(splits, tiny_plan(name, epochs=epochs), folder / name, device="cpu")
            models[name] = trained, evaluate(trained, splits, folder / "evaluation" / name)
        version = register(models, splits, VALIDATION, HALF, folder / "registered.json")
        yield SimpleNamespace(folder=folder, splits=splits, models=models, version=version)


@pytest.fixture
def served(made):
    return model_files.load("models:/tiny@production")


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """Return a copy of everything, with a store that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it to the store in use
    models = {
        name: (TrainedModel(folder / name), Evaluation(folder / "evaluation" / name))
        for name in made.models
    }
    return SimpleNamespace(folder=folder, splits=Splits(folder / "data"), models=models)


def png(image, size=None):
    picture = Image.fromarray(image.squeeze())
    buffer = io.BytesIO()
    (picture.resize(size) if size else picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# evaluate


def test_the_metrics_are_those_of_the_stored_predictions(made):
    evaluation = made.models["dense"][1]
    metrics, y = evaluation.metrics, made.splits.y("test")
    right = evaluation.probabilities.argmax(axis=1) == y
    assert metrics["accuracy"] == right.mean() < 1  # three labels are wrong
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]
    assert metrics["val_accuracy"] == made.models["dense"][0].run.val_accuracy
    assert metrics["run_id"] == made.models["dense"][0].run.run_id
    assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p95_ms"]
    assert metrics["images_per_second"] > 0
    assert metrics["size_bytes"] == made.models["dense"][0].model.stat().st_size


def test_every_number_that_is_written_is_a_metric_or_its_interval_and_none_is_missing(made):
    metrics = made.models["dense"][1].metrics
    numbers = {name for name, value in metrics.items() if isinstance(value, int | float)}
    bounds = {f"{name}_{end}" for name in BY_NAME for end in ("low", "high")}
    assert numbers - bounds == set(BY_NAME) - {"top_2_accuracy"}  # that of fewer than 4 classes
    logged = connect().get_run(made.models["dense"][0].run.run_id).data.metrics
    for name, metric in BY_NAME.items():
        assert (f"test_{name}" in logged) == (
            name in numbers and not isinstance(metric, TrainingMetric)
        )


def test_the_litert_file_is_measured_beside_the_keras_model(made):
    trained, evaluation = made.models["dense"]
    metrics = evaluation.metrics
    assert metrics["portable_sha256"] == sha256(trained.litert)
    assert metrics["portable_size_bytes"] == trained.litert.stat().st_size
    assert 0 <= metrics["portable_difference"] <= TOLERANCE
    assert 0 < metrics["portable_latency_p50_ms"] <= metrics["portable_latency_p95_ms"]
    listed = connect().list_artifacts(trained.run.run_id, "evaluation")
    assert "evaluation/portable.json" in {file.path for file in listed}


def test_the_files_that_the_graph_names_are_there(made):
    folder = made.models["dense"][1].path
    rows = pd.read_csv(folder / "confusion.csv")
    assert list(rows) == ["actual", "predicted"]
    assert len(rows) == 32
    assert len(list((folder / "plots").glob("*.png"))) == 4
    assert (folder / "predictions" / "most_confused.csv").exists()


def test_the_run_shows_the_evaluation(made):
    client = connect()
    run_id = made.models["dense"][0].run.run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == made.models["dense"][1].metrics["accuracy"]
    listed = {f.path for f in client.list_artifacts(run_id, "evaluation/plots")}
    assert "evaluation/plots/misclassified.png" in listed


def test_a_model_whose_bytes_changed_is_not_evaluated(copy):
    with (copy.folder / "dense" / "model.keras").open("ab") as file:
        file.write(b"x")
    before = (copy.folder / "evaluation/dense/metrics.json").read_bytes()
    with pytest.raises(ArtifactError, match="sha256"):
        evaluate(copy.models["dense"][0], copy.splits, copy.folder / "evaluation/dense")
    assert (copy.folder / "evaluation/dense/metrics.json").read_bytes() == before


def test_evaluating_in_another_store_records_the_run_there(copy, monkeypatch):
    store = another_store(copy, monkeypatch)
    evaluate(copy.models["dense"][0], copy.splits, copy.folder / "evaluation/dense")
    (run,) = store.search_runs([store.get_experiment_by_name("tiny").experiment_id])
    assert run.data.tags["original_run_id"] == copy.models["dense"][0].run.run_id
    assert run.data.metrics["test_accuracy"] == copy.models["dense"][1].metrics["accuracy"]


def another_store(copy, monkeypatch):
    """Leave the files as they are, and track into a store that knows nothing of them."""
    (copy.folder / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy.folder}/elsewhere/mlflow.db")
    return connect()


# register


def test_the_better_one_on_validation_is_the_first_in_production(made):
    assert made.version.model == "dense"
    assert (made.version.name, made.version.version) == ("tiny", 1)
    assert set(made.version.aliases) == {"challenger", "production"}
    tags = connect().get_model_version("tiny", "1").tags
    run = made.models["dense"][0].run
    assert tags["dataset_md5"] == run.data_md5
    assert tags["run_id"] == run.run_id
    assert tags["model_sha256"] == run.model_sha256
    assert tags["portable_sha256"] == sha256(made.models["dense"][0].litert)
    assert "left $" in connect().get_model_version("tiny", "1").description.replace("&#36;", "$")
    cards = connect().list_artifacts(run.run_id, "card")
    assert {file.path for file in cards} == {"card/card.html", "card/card.md"}


def test_registering_loads_no_tensorflow(copy):
    connect().delete_registered_model("tiny")
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['tensorflow', 'keras'])  # importing them fails\n"
        "from pathlib import Path\n"
        "from pipeline.artifacts.datasets import Splits\n"
        "from pipeline.artifacts.models import Evaluation, TrainedModel\n"
        "from pipeline.production.rules import Thresholds\n"
        "from tests.tiny import register, tiny_validation\n"
        "row = TrainedModel(Path('dense')), Evaluation(Path('evaluation/dense'))\n"
        "rules = Thresholds(floors={'accuracy': 0.5})\n"
        "print(register({'dense': row}, Splits(Path('data')), tiny_validation(), rules,"
        " Path('new.json')).aliases)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "production" in done.stdout


def test_registering_again_registers_nothing_twice(made):
    again = register(made.models, made.splits, VALIDATION, Thresholds(), made.folder / "again.json")
    assert again == made.version
    assert len(connect().search_model_versions("name = 'tiny'")) == 1
    run = connect().get_run(made.version.run_id)
    assert len(run.outputs.model_outputs) == 1
    logged = connect().get_logged_model(run.outputs.model_outputs[0].model_id)
    assert logged.experiment_id == run.info.experiment_id
    assert not (made.folder / "mlruns").exists()


def test_what_the_store_lacks_is_recorded_and_registered_again(copy, made, capsys, monkeypatch):
    client = connect()
    before = {}
    for name, (trained, _) in copy.models.items():
        before[name] = client.get_run(trained.run.run_id)
    store = another_store(copy, monkeypatch)
    version = register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "new.json")
    assert set(version.aliases) == {"challenger", "production"}
    said = capsys.readouterr().err
    for name, old in before.items():
        new = existing_run(old.info.run_id, "")
        assert f"run {old.info.run_id}, which trained {name}, is not in " in said
        assert f"recorded there again as run {new.run_id}" in said
        run = store.get_run(new.run_id)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == name
        # Not in the files: where the best epoch was, what this machine did meanwhile.
        lost = {k for k in old.data.metrics if k.startswith("system/")} | {"kept_epoch"}
        assert run.data.metrics == {k: v for k, v in old.data.metrics.items() if k not in lost}
        assert run.data.params == {k: v for k, v in old.data.params.items() if k != "trained_in"}
        told = {k: v for k, v in old.data.tags.items() if not k.startswith("mlflow.")}
        assert {k: v for k, v in run.data.tags.items() if k in told} == told
        assert run.data.tags["original_run_id"] == old.info.run_id
        steps = [
            store.get_metric_history(new.run_id, "val_loss"),
            client.get_metric_history(old.info.run_id, "val_loss"),
        ]
        assert len({tuple((row.step, row.value) for row in rows) for rows in steps}) == 1
        listed = {file.path for file in store.list_artifacts(new.run_id)}
        assert {"evaluation", "history.csv", "provenance.json"} <= listed
    found = versions.find("tiny@production")
    assert version.run_id == found.run_id == existing_run(before["dense"].info.run_id, "").run_id
    assert {"card/card.html", "card/card.md"} == {
        file.path for file in store.list_artifacts(found.run_id, "card")
    }
    passport = model_files.read_passport(found)
    assert passport.run == made.models["dense"][0].run, "that is what was trained, and where"
    assert (entry := ledger_of("tiny").entries()[0]).action == "promoted"
    assert entry.version == version.version
    # Once more, and nothing is recorded or registered twice.
    assert register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "x.json") == version
    assert capsys.readouterr().err == ""
    assert len(store.search_model_versions("name = 'tiny'")) == 1


def test_what_is_not_what_was_trained_is_not_recorded(copy, tmp_path, monkeypatch):
    store = another_store(copy, monkeypatch)
    other = tiny_splits(tmp_path / "other", seed=5)
    with pytest.raises(ArtifactError, match=r"trained on other data than .*: dvc checkout"):
        register(copy.models, other, VALIDATION, HALF, copy.folder / "new.json")
    (copy.folder / "dense" / "history.csv").write_text("epoch,loss\n")
    (copy.folder / "dense" / "provenance.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"provenance.json"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "new.json")
    experiment = store.get_experiment_by_name("tiny")
    assert experiment is None or store.search_runs([experiment.experiment_id]) == []


def test_a_store_that_fails_is_not_one_that_lacks_a_run(copy, monkeypatch):
    another_store(copy, monkeypatch)
    with sqlite3.connect(copy.folder / "elsewhere" / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    with pytest.raises(TrackingError, match=r"cannot find run 0000.*no such table: runs"):
        find_run("0" * 32)


def test_a_floor_holds_back_and_what_lacks_a_part_is_not_registered(copy):
    connect().delete_registered_model("tiny")
    high = Thresholds(floors={"accuracy": 0.99})
    made = register(copy.models, copy.splits, VALIDATION, high, copy.folder / "registered.json")
    assert made.aliases == ("challenger",)
    assert "below the floor 0.99" in made.shortfalls[0]
    connect().delete_registered_model("tiny")
    (copy.folder / "dvc.lock").unlink()
    with pytest.raises(ArtifactError, match=r"its passport lacks dvc.lock"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert not (copy.folder / "none.json").exists()
    assert connect().search_registered_models() == []


@pytest.mark.parametrize("end", ["stages:\n  train@dense:\n    deps:\n    - path:\n", "stages: {"])
def test_a_torn_dvc_lock_gets_into_no_passport(copy, end):
    connect().delete_registered_model("tiny")
    (copy.folder / "dvc.lock").write_text(f"schema: '2.0'\n{end}")
    with pytest.raises(ArtifactError, match=r"dvc.lock is torn"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert connect().search_registered_models() == []


def test_a_model_without_its_litert_file_is_not_registered(copy):
    connect().delete_registered_model("tiny")
    copy.models["dense"][0].litert.unlink()
    with pytest.raises(ArtifactError, match=r"no model.tflite .* dvc repro evaluate@dense"):
        register(copy.models, copy.splits, VALIDATION, HALF, copy.folder / "none.json")
    assert connect().search_registered_models() == []


def test_a_model_that_does_not_reproduce_its_predictions_is_not_registered(copy):
    path = copy.folder / "evaluation/dense/predictions/probabilities.npy"
    write_array(path, np.full((32, 4), 0.25, np.float32))
    client = connect()
    client.delete_registered_model("tiny")
    with pytest.raises(TrackingError, match="does not reproduce"):
        register(copy.models, copy.splits, VALIDATION, Thresholds(), copy.folder / "new.json")
    assert client.search_model_versions("name = 'tiny'") == []
    assert not (copy.folder / "new.json").exists()


# the served model


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


# predict


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
