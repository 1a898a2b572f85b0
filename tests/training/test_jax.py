"""The same recipes train on JAX, on a machine that has no TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.models.optimizers import OPTIMIZERS
from pipeline.models.recipes import Augmentation
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.mixing import mix

# Those that train step by step, on any backend.
OF_KERAS = [kind.name for kind in OPTIMIZERS if kind.keras_class]

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
from pipeline.training import device
from pipeline.models import build as models
from pipeline.training.engine import Data, fit
from pipeline.training.feed import order
from pipeline.training.optimizers import optimizer_of
from pipeline.models.recipes import Augmentation, Recipe

x, y = load_digits(return_X_y=True)
x = (x.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
data = Data(x[:1000], y[:1000], x[1000:1100], y[1000:1100], tuple("0123456789"))
where = device.choose("cpu")

def beside(recipe):
    theirs = models.build(recipe, (8, 8, 1), 10, 0)
    loss, labels = recipe.loss.name, data.y_train
    if loss == "focal":
        loss, labels = keras.losses.CategoricalFocalCrossentropy(), np.eye(10)[data.y_train]
    theirs.compile(optimizer=optimizer_of(recipe, 32 * recipe.epochs), loss=loss)
    given = {int(name): weight for name, weight in (recipe.class_weights or {}).items()}
    weights = {label: given.get(label, 1.0) for label in range(10)}
    averages = theirs.get_weights()
    balanced = data.y_train if recipe.sampling == "balanced" else None
    for epoch in range(1, recipe.epochs + 1):
        rows, _ = order(3, epoch, 1000, Augmentation(), balanced)
        for start in range(0, 1000, 32):
            batch = rows[start : start + 32]
            theirs.train_on_batch(data.x_train[batch], labels[batch], class_weight=weights)
            step = int(theirs.optimizer.iterations)
            share = 1 - min(recipe.ema, (1 + step) / (10 + step))
            averages = [a + (w - a) * share for a, w in zip(averages, theirs.get_weights())]
    return averages

for content in json.loads(sys.argv[1]):
    recipe = Recipe.model_validate(content)
    model = models.build(recipe, (8, 8, 1), 10, 0)
    first = model.get_weights()
    history = fit(model, recipe, data, seed=3, deterministic=True)
    weights = model.get_weights()
    moved = [(a - b).ravel() for a, b in zip(weights, first)]
    row = {
        "accuracy": float((model.predict(x[1400:], verbose=0).argmax(1) == y[1400:]).mean()),
        "precision": history.precision, "device": str(where),
        "val": history.kept.val_accuracy, "rows": len(history.epochs),
        "moved": float(np.linalg.norm(np.concatenate(moved))),
        "weights": [float(w.sum()) for w in weights],
    }
    if "beside" in sys.argv:
        differences = [np.abs(a - b).max() for a, b in zip(weights, beside(recipe))]
        row["max_difference"] = float(max(differences))
    print(json.dumps(row))
"""

AUGMENT = """
import json, sys
import numpy as np
from pipeline.training.backends.augment import augment
from pipeline.training.backends.mixing import mix
from pipeline.models.recipes import Augmentation

given, found = np.load(sys.argv[1]), []
for changes in json.loads(sys.argv[2]):
    augmentation = Augmentation.model_validate(changes)
    changed = augment(given["x"], augmentation, given["draws"], given["mirrored"])
    labels = np.arange(len(changed), dtype=np.int32)
    changed, *_ = mix(changed, labels, augmentation, given["draws"][-4:], len(labels))
    found.append(np.asarray(changed))
np.save(sys.argv[3], found)
"""


LAYERS = """
import itertools, json
import jax, keras, numpy as np
from jax import numpy as jnp
from pipeline.training.backends import fused_jax

draw, max_difference = np.random.default_rng(0), 0.0

def compare(kinds, x, learning, **settings):
    weights, seen = None, []
    for kind in kinds:
        layer = kind(**settings)
        layer.build(x.shape)
        kinds_of = layer.trainable_variables, layer.non_trainable_variables
        values = [[v.value for v in kind] for kind in kinds_of]
        shape = layer.compute_output_shape(x.shape)
        weights = draw.normal(size=shape) if weights is None else weights
        def loss(x, values=values, layer=layer):
            y, others = layer.stateless_call(*values, x, **learning)
            return jnp.sum(y * weights), (y, others)
        (_, (y, others)), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(x))
        seen.append([y, gradient, *others])
    return max(float(jnp.abs(a - b).max()) for a, b in zip(*seen, strict=True))

for size, padding in itertools.product((2, 3), ("valid", "same")):
    x = np.maximum(np.round(draw.normal(size=(4, 9, 7, 3))), 0).astype("float32")  # many are equal
    kinds = keras.layers.MaxPooling2D, fused_jax.MaxPooling2D
    max_difference = max(max_difference, compare(kinds, x, {}, pool_size=size, padding=padding))
for mean in (0, 10):
    x = draw.normal(mean, 2, (16, 6, 5, 4)).astype("float32")
    kinds = keras.layers.BatchNormalization, fused_jax.BatchNormalization
    max_difference = max(max_difference, compare(kinds, x, {"training": True}))
print(json.dumps(max_difference))
"""

ONCE = """
import json
import keras, numpy as np
from pipeline.models import build as models
from pipeline.training.backends import steps_jax
from pipeline.training.device import choose
from pipeline.training.engine import Data, fit
from pipeline.models.recipes import Recipe

choose("cpu")
draw = np.random.default_rng(0)
x, y = draw.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8), np.arange(100) % 2
data = Data(x, y, x, y, ("a", "b"))
sums = []
for seed, rate in ((0, 0.1), (1, 0.1), (0, 0.1), (0, 0.2)):
    recipe = Recipe(layers=["flatten", {"dense": 8}, {"dropout": rate}], epochs=1, keep="last")
    model = models.build(recipe, (8, 8, 1), 2, seed)
    fit(model, recipe, data, seed=seed)
    sums.append(float(sum(np.abs(w).sum() for w in model.get_weights())))
print(json.dumps([sums, steps_jax.compiled_steps.cache_info().misses]))
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keep what is compiled here out of the user's cache; all tests share it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


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
    optimizers = ["adamw", {"name": "sgd", "momentum": 0.9}]
    averaged = {"layers": ["flatten", "batch_norm"], "ema": 0.95, "epochs": 3}
    imbalance = {"epochs": 3, "loss": "focal", "class_weights": {"3": 5}, "sampling": "balanced"}
    recipes = [*({"optimizer": name} for name in optimizers), imbalance, averaged]
    trained = train(*recipes, arguments=["beside"])
    for row in trained:
        assert row["max_difference"] < 1e-4
    for row in trained[:2]:
        assert row["accuracy"] > 0.85
        assert row["rows"] == 15
        assert row["device"].startswith("cpu: ")


@pytest.fixture(scope="module")
def in_one_process():
    """Train with every optimizer, with clipped gradients for one step, and until patience ends."""
    recipes = [{"optimizer": {"name": name, "learning_rate": 0.01}} for name in OF_KERAS]
    clipped = {"name": "sgd", "learning_rate": 1, "clip_norm": 0.001}
    standing = {"name": "sgd", "learning_rate": 1e-9}
    return train(
        *recipes,
        {"optimizer": clipped, "epochs": 1, "batch_size": 1000},
        {"optimizer": standing, "keep": "best", "patience": 2, "then": [{"epochs": 3}]},
    )


def test_every_optimizer_trains_on_jax(in_one_process):
    for name, row in zip(OF_KERAS, in_one_process, strict=False):
        assert row["accuracy"] > 0.7, name


def test_clipping_and_patience_do_on_jax_what_they_do_on_tensorflow(in_one_process):
    clipped, patient = in_one_process[-2:]
    assert clipped["moved"] == pytest.approx(0.001, rel=1e-3)
    assert patient["rows"] == 5


def test_a_convolutional_recipe_learns_and_twice_the_same():
    normalised = {"batch_norm": True, "momentum": 0.9}
    layers = [{"conv": 16, "activation": "linear"}, normalised, {"activation": "gelu"}]
    recipe = {
        "layers": [*layers, {"max_pool": 2}, "flatten", {"dropout": 0.1}],
        "optimizer": {"name": "muon", "learning_rate": 0.01},
        "augmentation": {"shift": 0.05, "rotation": 5, "mixup": 0.1, "random_erasing": 0.1},
        "epochs": 20,
    }
    with ThreadPoolExecutor() as pool:
        (one,), (two,) = pool.map(lambda _: train(recipe), range(2))
    assert one == two
    assert one["accuracy"] > 0.9


def test_the_same_draws_change_images_as_on_tensorflow(tmp_path):
    draw = np.random.default_rng(0)
    every = {"flip": "both", "rotation": 20, "zoom": 0.2, "shift": 0.1, "crop": 2, "cutout": 0.3}
    every |= {"random_resized_crop": 0.4, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 1}
    every |= {"color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}}
    # Apart from the others: equalize makes a difference of one between backends a larger one.
    apart = {"rand_augment": {"num_ops": 2}, "fill": "reflect"}
    x = draw.integers(0, 256, (64, 20, 16, 3), dtype=np.uint8)
    draws = draw.random((draws_of(Augmentation.model_validate(apart)), 64), dtype=np.float32)
    mirrored = draw.random(64) < 0.5
    np.savez(tmp_path / "given.npz", x=x, draws=draws, mirrored=mirrored)
    on_jax(AUGMENT, tmp_path / "given.npz", json.dumps([every, apart]), tmp_path / "jax.npy")
    for changes, theirs in zip((every, apart), np.load(tmp_path / "jax.npy"), strict=True):
        augmentation = Augmentation.model_validate(changes)
        ours = augment(x, augmentation, draws, mirrored)
        labels = np.arange(64, dtype=np.int32)
        ours = np.asarray(mix(ours, labels, augmentation, draws[-4:], 64)[0]).astype(int)
        assert np.abs(ours - theirs).max() <= 1
        assert (ours != theirs).mean() < 0.01


def test_its_faster_layers_are_keras_own():
    assert json.loads(on_jax(LAYERS).splitlines()[-1]) < 1e-4


@pytest.mark.long
def test_the_next_process_finds_the_compilations_on_disk(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "of two"))

    def kept():
        return {path.name for path in (cache / "of two").rglob("*-cache")}

    first = on_jax(ONCE)
    compiled = kept()
    assert any("train_steps" in name for name in compiled)
    assert on_jax(ONCE) == first
    assert kept() == compiled


def test_trainings_that_differ_in_their_seed_share_one_compilation():
    sums, compilations = json.loads(on_jax(ONCE).splitlines()[-1])
    assert sums[0] == sums[2]
    assert len(set(sums)) == 3
    assert compilations == 2
