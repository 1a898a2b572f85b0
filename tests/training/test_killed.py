"""A training that is killed goes on where it was, in the same MLflow run, to the same weights."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from itertools import cycle

import psutil
import pytest
from mlflow import MlflowClient

from pipeline.models.optimizers import OPTIMIZERS
from pipeline.tracking.store import connect
from tests.conftest import ROOT, clone, runner
from tests.tiny import store, tiny_plan, tiny_splits

# Those that train step by step, on any backend.
OF_KERAS = [kind.name for kind in OPTIMIZERS if kind.keras_class]

__all__ = ["store"]

LAYERS = [
    {"conv": 8, "kernel_size": 2, "whiten": True},
    {"conv_block": 4, "max_pool": 2},
    "flatten",
    {"dense": 8, "max_norm": 1.0},
    {"dropout": 0.2},
]
AUGMENTATIONS = [
    {"flip": "alternating", "crop": 1},
    {"rotation": 20, "zoom": 0.2, "shift": 0.1},
    {"flip": "both", "cutout": 0.3},
    {"random_resized_crop": 0.3, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 1.0},
    {"rand_augment": {}, "color_jitter": {"brightness": 0.4, "hue": 0.1}, "mixup": 0.2},
]
PHASES = [{"epochs": 2, "augmentation": {"flip": "horizontal"}}]
SCHEDULES = ["constant", {"name": "triangular", "warmup": 0.2}, {"name": "cosine"}]


def small_plans():
    """Return quickly compiled plans: an optimizer of each module, without averages and with."""
    layers = ["flatten", {"dense": 8}, {"dropout": 0.2}]
    return [
        tiny_plan(layers=layers, optimizer=name, epochs=3, patience=2, ema=average)
        for name, average in (("adam", 0.0), ("muon", 0.9))
    ]


def plans(epochs):
    """Return a plan for each optimizer; all other choices take turns."""
    augmentations, schedules = cycle(AUGMENTATIONS), cycle(SCHEDULES)
    keep = cycle([("last", None), ("best", 2)])
    precisions = cycle(["float32", "bfloat16"])
    averages, sampling = cycle([0.9, 0.0]), cycle(["shuffle", "balanced"])
    return [
        tiny_plan(
            layers=LAYERS,
            optimizer={"name": name, "learning_rate": 0.01},
            epochs=epochs,
            then=PHASES,
            augmentation=next(augmentations),
            schedule=next(schedules),
            keep=kept,
            patience=patience,
            precision=next(precisions),
            ema=next(averages),
            sampling=next(sampling),
        )
        for name, (kept, patience) in zip(OF_KERAS, keep, strict=False)
    ]


def outcomes(folder, kill=(), kills=0, stop=(), seed=0, **environment):
    """Train each plan without and with an interruption, and return what became of it."""
    tiny_splits(folder / "data")
    given = {
        "kill": [plan.model_dump(mode="json") for plan in kill],
        "stop": [plan.model_dump(mode="json") for plan in stop],
        "kills": kills,
        "seed": seed,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killing", json.dumps(given)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check_run(row, folder, kills):
    """All is in one run, with one value for each epoch: that of the history."""
    client = connect()
    run = client.get_run(row["run"]["run_id"])
    assert row["run"]["resumed"] == kills
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed"] == str(kills)
    for number in range(1, kills + 1):
        assert "RUNNING; resumed" in run.data.tags[f"interruption.{number}"]
    history = list(csv.DictReader((folder / "history.csv").open()))
    for name in run.data.metrics:
        rows = client.get_metric_history(run.info.run_id, name)
        assert set(Counter(row.step for row in rows).values()) == {1}, name
        if name in history[0]:
            expected = {int(line["epoch"]): float(line[name]) for line in history}
            assert {row.step: row.value for row in rows} == expected
            assert list(expected) == list(range(1, row["run"]["epochs"] + 1))


def test_three_kills_change_nothing_and_no_state_is_forgotten(store):
    """Equal seeds give equal weights, in one process or in four."""
    plan = tiny_plan(
        layers=[{"conv": 8, "strides": 2}, "batch_norm", "flatten", {"dropout": 0.2}],
        epochs=5,
        then=[{"epochs": 3}],
        augmentation={"shift": 0.1, "flip": "horizontal", "cutout": 0.2},
        schedule={"name": "cosine"},
        sampling="balanced",
        ema=0.9,
        patience=4,
    )
    first, *others = outcomes(store, [plan], 3, small_plans())
    assert first["same"]
    assert first["left"] < 1
    check_run(first, store / "0-killed", 3)
    assert len(others) == 2
    assert all(row["same"] for row in others), others


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_many_kills_change_nothing(backend, store):
    """Twenty in all: two of each optimizer on each backend."""
    rows = outcomes(store, plans(4), 2, plans(3), 1, KERAS_BACKEND=backend)
    assert len(rows) == 2 * len(OF_KERAS)
    assert all(row["same"] for row in rows), rows
    for number, row in enumerate(rows[: len(OF_KERAS)]):
        check_run(row, store / f"{number}-killed", 2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_a_killed_flow_has_left_goes_on_under_dvc(tmp_path):
    """The flow is killed with `kill -9`; the training is told to end, as its parent is gone."""
    folder, cache = clone(tmp_path / "clone"), tmp_path / "cache"
    run = runner(folder, DATASET_CACHE=str(cache))
    log = tmp_path / "flow.log"
    # Its temporary server outlives it, and would hold the pipes of this test open.
    flow = f"pipeline run --models dense --set dense.epochs=200 --until train > {log} 2>&1"
    # Its exit code is that of the flow.
    kill_at_the_first_checkpoint = (
        f"{flow} & flow=$!; "
        f"while kill -0 $flow && ! ls {cache}/checkpoints/*.npz; do sleep 0.1; done; "
        "kill -9 $flow; wait $flow"
    )
    killed = run("bash", "-c", kill_at_the_first_checkpoint, check=False)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DATASET_CACHE") == str(cache) and "uvicorn" in " ".join(
                process.cmdline()
            ):
                process.kill()
    assert killed.returncode == 128 + 9, log.read_text()[-3000:]
    done = run("dvc", "repro", "train@dense")
    assert "goes on after epoch" in done.stderr
    info = json.loads((folder / "models/digits/dense/run.json").read_text())
    assert (info["resumed"], info["epochs"]) == (1, 200)
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    (found,) = client.search_runs([client.get_run(info["run_id"]).info.experiment_id])
    assert found.info.status == "FINISHED"
    rows = client.get_metric_history(info["run_id"], "val_loss")
    assert sorted(row.step for row in rows) == list(range(1, 201))
    assert list((cache / "checkpoints").iterdir()) == []
