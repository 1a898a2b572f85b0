"""The same recipes train on JAX, on a machine that has no TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.augment import DRAWS, augment
from pipeline.recipes import Augmentation

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install jax"
)

TRAIN = """
import json, sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent)
import keras, numpy as np
from sklearn.datasets import load_digits
from pipeline import device, models
from pipeline.engine import Data, fit, order
from pipeline.optimizers import optimizer_of
from pipeline.recipes import Augmentation, Recipe

x, y = load_digits(return_X_y=True)
x = (x.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
data = Data(x[:1000], y[:1000], x[1000:1400], y[1000:1400], tuple("0123456789"))
where = device.choose("cpu")

def beside(recipe):
    theirs = models.build(recipe, (8, 8, 1), 10, 0)
    theirs.compile(optimizer=optimizer_of(recipe, 32 * recipe.epochs), loss=recipe.loss)
    for epoch in range(1, recipe.epochs + 1):
        rows, _ = order(3, epoch, 1000, Augmentation())
        for start in range(0, 1000, 32):
            batch = rows[start : start + 32]
            theirs.train_on_batch(data.x_train[batch], data.y_train[batch])
    return theirs.get_weights()

for said in json.loads(sys.argv[1]):
    recipe = Recipe.model_validate(said)
    model = models.build(recipe, (8, 8, 1), 10, 0)
    history = fit(model, recipe, data, seed=3, deterministic=True)
    weights = model.get_weights()
    row = {
        "accuracy": float((model.predict(x[1400:], verbose=0).argmax(1) == y[1400:]).mean()),
        "precision": history.precision, "device": str(where),
        "val": history.kept.val_accuracy, "rows": len(history.epochs),
        "weights": [float(w.sum()) for w in weights],
    }
    if "beside" in sys.argv:
        row["apart"] = float(max(np.abs(a - b).max() for a, b in zip(weights, beside(recipe))))
    print(json.dumps(row))
"""

AUGMENT = """
import sys
import numpy as np
from pipeline.augment import augment
from pipeline.recipes import Augmentation

given = np.load(sys.argv[1])
said = Augmentation.model_validate_json(sys.argv[2])
np.save(sys.argv[3], np.asarray(augment(given["x"], said, given["draws"], given["mirrored"])))
"""


def on_jax(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train(*recipes, arguments=()):
    """Train recipes one after the other in one process, whose start takes the most time."""
    contents = [
        {"layers": ["flatten", {"dense": 64}], "epochs": 15, "keep": "last", **changes}
        for changes in recipes
    ]
    lines = on_jax(TRAIN, json.dumps(contents), *arguments).splitlines()
    return [json.loads(line) for line in lines[-len(recipes) :]]


def test_the_weights_are_those_of_keras_own_loop():
    optimizers = ("adamw", {"name": "sgd", "momentum": 0.9})
    trained = train(*({"optimizer": name} for name in optimizers), arguments=["beside"])
    for said in trained:
        assert said["apart"] < 1e-4
        assert said["accuracy"] > 0.85
        assert said["rows"] == 15
        assert said["device"].startswith("cpu: ")


def test_a_convolutional_recipe_learns_and_twice_the_same():
    normalised = {"batch_norm": True, "momentum": 0.9}
    layers = [{"conv": 16, "activation": "linear"}, normalised, {"activation": "gelu"}]
    said = {
        "layers": [*layers, {"max_pool": 2}, "flatten", {"dropout": 0.1}],
        "optimizer": {"name": "muon", "learning_rate": 0.01},
        "augmentation": {"shift": 0.05, "rotation": 5},
        "epochs": 20,
    }
    with ThreadPoolExecutor() as pool:
        (one,), (two,) = pool.map(lambda _: train(said), range(2))
    assert one == two
    assert one["accuracy"] > 0.9


def test_the_same_draws_change_images_as_on_tensorflow(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (16, 12, 10, 3), dtype=np.uint8)
    draws = draw.random((DRAWS, 16), dtype=np.float32)
    mirrored = draw.random(16) < 0.5
    np.savez(tmp_path / "given.npz", x=x, draws=draws, mirrored=mirrored)
    every = {"flip": "both", "rotation": 20, "zoom": 0.2, "shift": 0.1, "crop": 2, "cutout": 0.3}
    said = Augmentation.model_validate(every)
    on_jax(AUGMENT, tmp_path / "given.npz", said.model_dump_json(), tmp_path / "jax.npy")
    ours = np.asarray(augment(x, said, draws, mirrored)).astype(int)
    theirs = np.load(tmp_path / "jax.npy").astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.01
