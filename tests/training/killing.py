"""Train in processes that are killed; run as a program, as TensorFlow must start in each process.

It imports TensorFlow once and forks, which takes a tenth of the time of a new process.
"""

import json
import math
import multiprocessing
import random
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

# What a training imports late; here it is imported once.
import h5py  # noqa: F401
import mlflow.store.tracking.sqlalchemy_store
import mlflow.system_metrics.system_metrics_monitor  # noqa: F401
import numpy as np
import pandas  # noqa: F401

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.models import TrainedModel
from pipeline.models.build import build
from pipeline.models.plan import ModelPlan
from pipeline.training import chunks, engine
from pipeline.training import train as stage
from pipeline.training.backends import steps as backend
from pipeline.training.checkpoints import files, saving
from tests.tiny import CLASS_NAMES, IMAGE_SHAPE

SPLITS = Path("data")
FORK = multiprocessing.get_context("fork")


def train(plan, output, steps):
    """Train in short chunks, and count the steps."""
    chunks.SECONDS_PER_CHUNK = 0.02
    taken: Any = backend.steps()
    compile_training = taken.compile_training

    def counting(*arguments):
        run = compile_training(*arguments)

        def run_and_count(x, y, rows, mirrored):
            sums = run(x, y, rows, mirrored)
            steps.value += len(rows)
            time.sleep(0.002 * len(rows))
            return sums

        return run_and_count

    taken.compile_training = counting
    stage.train(Splits(SPLITS), plan, output, device="cpu", deterministic=True)


def started(plan, output):
    steps = FORK.Value("i", 0)
    process = FORK.Process(target=train, args=(plan, output, steps))
    process.start()
    return process, steps


def complete(plan, output):
    process, steps = started(plan, output)
    process.join()
    assert process.exitcode == 0
    return steps.value


def killed(plan, output, after):
    process, steps = started(plan, output)
    # What is killed before anything was saved begins anew.
    while process.is_alive() and (steps.value < after or not any(files.folder().glob("[!.]*.npz"))):
        time.sleep(0.0005)
    process.kill()
    process.join()
    assert process.exitcode == -9, "the training ended before the kill"


def weights(output):
    with zipfile.ZipFile(TrainedModel(output).model) as file:
        return file.read("model.weights.h5")


def kill(plan, name, kills, draw):
    """Return what became of a training that was killed, beside one that was not."""
    whole, done = Path(f"{name}-whole"), Path(f"{name}-killed")
    total = complete(plan, whole)
    for _ in range(kills):
        killed(plan, done, draw.randint(1, total // (kills + 1)))
    left = complete(plan, done)
    return {
        "same": weights(done) == weights(whole),
        "left": left / total,
        "run": json.loads((done / "run.json").read_text()),
    }


def stop(plan, after):
    """Return whether a training that goes on from an epoch ends as the one that it was saved in."""
    splits, slot = Splits(SPLITS), files.Slot("stopped", Path("stopped"))
    data = engine.Data(
        *(splits.x("train"), splits.y("train"), splits.x("val"), splits.y("val")), CLASS_NAMES
    )
    copy = slot.path.with_name("copy")

    def trained(on_epoch=None):
        model = build(plan.recipe, IMAGE_SHAPE, len(CLASS_NAMES), 3)
        with saving.Checkpoints(slot) as checkpoints:

            def seen(row):
                assert checkpoints._writing is not None
                checkpoints._writing.result()
                if on_epoch:
                    on_epoch(row)

            history = engine.fit(
                *(model, plan.recipe, data),
                seed=3,
                deterministic=True,
                checkpoints=checkpoints,
                on_epoch=seen,
            )
        return model.get_weights(), history

    def keep(row):
        if row.epoch == after:
            shutil.copy(slot.path, copy)

    weights, history = trained(keep)
    shutil.copy(copy, slot.path)
    again, other = trained()
    assert [row.seconds for row in other.epochs[:after]] == [
        row.seconds for row in history.epochs[:after]
    ], "it did not go on"
    same = all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))
    return {"same": same and history.kept.epoch == other.kept.epoch}


if __name__ == "__main__":
    saving.LEAST_SECONDS, saving.MOST_SHARE = 0.0, math.inf
    given = json.loads(sys.argv[1])
    draw = random.Random(given["seed"])
    # First, as no process can be forked from one in which TensorFlow has computed.
    for number, plan in enumerate(given["kill"]):
        row = kill(ModelPlan.model_validate(plan), str(number), given["kills"], draw)
        print(json.dumps(row), flush=True)
    for plan in given["stop"]:
        row = stop(ModelPlan.model_validate(plan), draw.randint(1, 2))
        print(json.dumps(row), flush=True)
