import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.files import dvc_md5
from pipeline.artifacts.models import TrainedModel
from pipeline.errors import TrackingError, TrainingError
from pipeline.tracking.store import connect
from pipeline.training.progress import LINE
from pipeline.training.train import train
from tests.conftest import ROOT
from tests.tiny import store, tiny_plan, tiny_splits

__all__ = ["store"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once, in a folder with a store of its own."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "params.yaml").touch()
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        splits = tiny_splits(Path("data/processed/tiny"))
        plan = tiny_plan(class_weights={"left $": 2})
        train(splits, plan, Path("models/tiny/dense"), device="cpu")
        yield TrainedModel(folder / "models/tiny/dense")


def only_run(client, name="tiny"):
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id])[0]


def test_the_model_learns_and_its_files_say_so(trained):
    run = trained.run
    rows = list(csv.DictReader(trained.history.open()))
    assert [row["epoch"] for row in rows] == [str(n) for n in range(1, 9)]
    assert set(rows[0]) >= {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert run.val_accuracy == max(float(row["val_accuracy"]) for row in rows) > 0.9
    assert run.parameters == 64 * 16 + 16 + 16 * 4 + 4
    assert run.epochs == 8
    assert run.seed == 0
    assert run.class_names == ("dark", "bright", "left $", "right")
    assert run.device.startswith("cpu")


def test_the_run_has_what_a_reader_asks(trained):
    client = connect()
    run = client.get_run(trained.run.run_id)
    assert run.info.status == "FINISHED"
    assert "stopped_epoch" not in run.data.metrics
    assert run.data.params["optimizer.name"] == "adam"
    assert run.data.params["batch_size"] == "8"
    assert run.data.params["loss"] == "sparse_categorical_crossentropy"
    assert run.data.params["class_weights"] == "left $: 2.0"
    splits = trained.path.parent.parent.parent / "data/processed/tiny"
    assert run.inputs.dataset_inputs[0].dataset.digest == dvc_md5(splits) == trained.run.data_md5
    for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        assert len(client.get_metric_history(run.info.run_id, key)) == 8
    assert run.data.tags["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "version.tensorflow" in run.data.tags
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"model_summary.txt", "history.csv", "curves.png"} <= names
    assert "augmented.png" not in names


def test_the_run_shows_training_images_as_they_are_changed(store):
    splits = tiny_splits(store / "data")
    plan = tiny_plan(epochs=1, augmentation={"rand_augment": {}, "mixup": 0.2})
    train(splits, plan, store / "model", device="cpu")
    client = connect()
    path = client.download_artifacts(only_run(client).info.run_id, "augmented.png", store)
    assert np.asarray(Image.open(path).convert("RGB")).std() > 5


def test_a_loss_that_explodes_fails_the_run_and_leaves_no_run_file(store):
    plan = tiny_plan(
        optimizer={"name": "sgd", "learning_rate": 10},
        layers=["flatten"] + [{"dense": 64, "activation": "linear"}] * 4,
    )
    with pytest.raises(TrainingError, match="the loss became"):
        train(tiny_splits(store / "data"), plan, store / "model", device="cpu")
    run = only_run(connect())
    assert run.info.status == "FAILED"
    assert "the loss became" in run.data.tags["failure"]
    assert not (store / "model" / "run.json").exists()


def test_an_early_end_is_told_on_the_terminal_and_in_the_run(store, capfd):
    plan = tiny_plan(optimizer={"name": "sgd", "learning_rate": 1e-9}, patience=2)
    train(tiny_splits(store / "data"), plan, store / "model", device="cpu")
    run = only_run(connect())
    assert run.data.metrics["stopped_epoch"] == run.data.metrics["epochs"] == 3
    assert run.data.metrics["kept_epoch"] == 1
    last = LINE.fullmatch(capfd.readouterr().err.strip().splitlines()[-1])
    assert last
    assert (last["epoch"], last["epochs"]) == ("3", "3")
    assert "stopped, of 8; best epoch 1 val_accuracy 0." in last["text"]


def test_a_gpu_that_is_not_there_is_refused_before_a_run_starts(store):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="device is gpu"):
        train(tiny_splits(store / "data"), tiny_plan(), store / "model", device="gpu")
    assert list(store.glob("mlflow.db")) == []


def test_a_store_that_is_away_is_said_before_the_first_epoch(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="Connection refused"):
        train(tiny_splits(store / "data"), tiny_plan(), store / "model", device="cpu")


def test_equal_seeds_give_equal_weights_when_asked_and_a_log_is_short(store):
    tiny_splits(store / "data")
    (store / "plan.json").write_text(tiny_plan(epochs=3).model_dump_json())
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from pipeline.artifacts.datasets import Splits\n"
        "from pipeline.models.plan import ModelPlan\n"
        "from pipeline.training.train import train\n"
        "plan, splits = ModelPlan.load(Path('plan.json')), Splits(Path('data'))\n"
        "for name in 'ab':\n"
        "    train(splits, plan, Path(name), device='cpu', deterministic=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=store,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    infos = [json.loads((store / name / "run.json").read_text()) for name in "ab"]
    assert infos[0]["val_loss"] == infos[1]["val_loss"]
    assert (store / "a/model.keras").stat().st_size > 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("tiny dense: epoch ")]
    assert 2 <= len(lines) <= 6
    assert "epoch 3/3" in lines[-1]
