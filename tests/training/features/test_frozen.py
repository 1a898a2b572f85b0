import os

import keras
import numpy as np
import pytest

from pipeline.artifacts.shards import Rows
from pipeline.models.backbones.layer import FEATURES
from pipeline.models.build import build
from pipeline.models.recipes import Recipe
from pipeline.training.calibration import calibrate
from pipeline.training.engine import Data, fit
from pipeline.training.features import forward
from pipeline.training.features.frozen import features_of, fingerprint, has_fixed_features
from pipeline.training.logistic import fit_softmax

SHAPE = (32, 32, 3)
LITE0 = {"backbone": "efficientnet_lite0"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Return the cache, which is empty."""
    monkeypatch.setenv("DATASET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def recipe_of(**changes):
    content = {"layers": [LITE0], "optimizer": "lbfgs", "epochs": 50}
    return Recipe.model_validate(content | changes)


def images(count, seed=0):
    """Return noise that is red or blue."""
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(seed).integers(0, 100, (count, *SHAPE), dtype=np.uint8)
    pixels[labels == 0, ..., 0] += 150
    pixels[labels == 1, ..., 2] += 150
    return pixels, labels


def data_of(count=20, seed=0):
    x, y = images(count, seed)
    x_val, y_val = images(6, seed + 100)
    return Data(x, y, x_val, y_val, ("red", "blue"))


def small_model(seed=0, shape=SHAPE, head=()):
    """Return a model as `build` makes it, with one convolution for a backbone."""
    keras.utils.set_random_seed(seed)
    pixels = keras.Input(shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, name="scaled")(pixels)
    x = keras.layers.Conv2D(8, 3, activation="relu", trainable=False, name="backbone_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name=FEATURES)(x)
    for layer in head:
        x = layer(x)
    x = keras.layers.Dense(2, activation="softmax", name="probabilities")(x)
    return keras.Model(pixels, x, name="classifier")


def found(model, data):
    done: list[int] = []
    features = features_of(model, data, done.append)
    assert sum(done) == len(data.x_train) + len(data.x_val)
    return features


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_the_features_are_those_of_the_model_and_the_answers_too(engine, monkeypatch):
    monkeypatch.setattr(forward, "engine", lambda: engine)
    model, data = small_model(), data_of(40)
    features = found(model, data)
    inside = keras.Model(model.input, model.get_layer(FEATURES).output)
    expected = inside.predict(data.x_train, verbose=0)
    np.testing.assert_allclose(features.data.x_train, expected, atol=1e-5)
    history = fit_softmax(features.head, recipe_of(), features.data)
    # The confidence of the whole model is fitted on the features too.
    calibration = calibrate(features.head, features.data.x_val, data.y_val)
    assert calibration.after.loss <= calibration.before.loss
    inside = features.head(features.data.x_val).numpy()
    np.testing.assert_allclose(model(data.x_val), inside, atol=1e-4)
    answers = model.predict(data.x_val, verbose=0)
    assert (answers.argmax(1) == data.y_val).mean() == history.kept.val_accuracy == 1


def test_only_new_images_are_computed_and_features_are_the_same_to_the_last_bit(folder):
    data, model = data_of(), small_model()
    first = found(model, data)
    again = found(model, data)
    assert (first.computed, again.computed) == (26, 0)
    np.testing.assert_array_equal(again.data.x_train, first.data.x_train)
    x, y = images(3, seed=7)
    more = Data(
        np.concatenate([x, data.x_train, x]),  # new ones first, and twice
        np.concatenate([y, data.y_train, y]),
        *(data.x_val, data.y_val, data.class_names),
    )
    grown = found(model, more)
    assert grown.computed == 3
    np.testing.assert_array_equal(grown.data.x_train[3:-3], first.data.x_train)
    np.testing.assert_array_equal(grown.data.x_train[:3], grown.data.x_train[-3:])
    # Without what it remembers, and with a damaged network, all is computed again, and equal.
    for file in folder.rglob("*"):
        if file.suffix == ".tflite":
            file.write_bytes(file.read_bytes()[:-9] + os.urandom(9))
        elif file.is_file():
            file.unlink()
    alone = found(model, more)
    assert alone.computed == 29
    np.testing.assert_array_equal(alone.data.x_train, grown.data.x_train)


def test_images_in_shards_have_the_features_of_the_same_images_in_an_array(tmp_path):
    data, model = data_of(), small_model()
    np.save(tmp_path / "shard.npy", data.x_train)
    rows = np.random.default_rng(0).permutation(20)
    sharded = Rows([tmp_path / "shard.npy"], np.array([0, 20]), rows, SHAPE)
    val = (data.x_val, data.y_val, data.class_names)
    first = found(model, Data(sharded, data.y_train[rows], *val))
    again = found(model, data)
    assert (first.computed, again.computed) == (26, 0)
    np.testing.assert_array_equal(first.data.x_train, again.data.x_train[rows])


def with_small_backbone(_):
    layers = keras.layers.Dropout(0.2), keras.layers.Dense(16, activation="relu")
    return small_model(head=layers)


def with_lite0(recipe):
    return build(recipe, SHAPE, 2, 0)


@pytest.mark.parametrize(
    "model_of", [with_small_backbone, pytest.param(with_lite0, marks=pytest.mark.long)]
)
def test_a_head_of_several_layers_is_trained_on_features_and_the_model_has_its_weights(
    model_of, monkeypatch
):
    monkeypatch.setattr(forward, "engine", lambda: "keras")
    data = data_of(40)
    recipe = recipe_of(
        layers=[LITE0, {"dropout": 0.2}, {"dense": 16}],
        optimizer={"name": "adam", "learning_rate": 0.01},
        **{"batch_size": 8, "epochs": 4},
    )
    model = model_of(recipe)
    backbone = [np.copy(v) for v in model.non_trainable_variables if v.dtype == "float32"]
    features = found(model, data)
    history = fit(features.head, recipe, features.data, seed=0)
    assert history.kept.val_accuracy == 1
    assert features.data.x_train.shape == (40, model.get_layer(FEATURES).output.shape[-1])
    answers = model.predict(data.x_val, verbose=0)
    inside = features.head.predict(features.data.x_val, verbose=0)
    np.testing.assert_allclose(inside, answers, atol=1e-3)
    after = [np.copy(v) for v in model.non_trainable_variables if v.dtype == "float32"]
    for a, b in zip(backbone, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_weights_layers_or_sizes_have_another_fingerprint():
    model, changed = small_model(), small_model()
    kernel = changed.layers[2].kernel
    kernel.assign(kernel + 1e-6)
    others = [small_model(seed=1), small_model(shape=(32, 40, 3)), changed]
    assert fingerprint(model) == fingerprint(small_model())
    assert len({fingerprint(one) for one in (model, *others)}) == 4


@pytest.mark.parametrize(
    ("changes", "fixed"),
    [
        ({}, True),
        ({"optimizer": "adam"}, True),
        ({"optimizer": "adam", "then": [{"epochs": 1}]}, True),
        ({"optimizer": "adam", "augmentation": {"flip": "horizontal"}}, False),
        ({"optimizer": "adam", "then": [{"epochs": 1, "augmentation": {"crop": 1}}]}, False),
        ({"optimizer": "adam", "layers": [{**LITE0, "trainable": "last_3"}]}, False),
        ({"layers": ["flatten"]}, False),
    ],
)
def test_features_are_fixed_where_nothing_changes_pixels_or_the_network(changes, fixed):
    assert has_fixed_features(recipe_of(**changes)) == fixed


def test_a_trained_backbone_has_no_logistic_regression():
    with pytest.raises(ValueError, match="needs a backbone with trainable: none"):
        recipe_of(layers=[{**LITE0, "trainable": "all"}])
