"""What is trained in place of a model learns what the model would have learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.models import build as models
from pipeline.models.recipes import Recipe
from pipeline.training.backends import fused_tensorflow as fused
from pipeline.training.backends.steps import steps
from pipeline.training.engine import Data, fit
from pipeline.training.twin import agreement, twin

CNN = {
    "layers": [
        {"conv": 16, "strides": 2, "activation": "linear", "use_bias": False},
        "batch_norm",
        {"activation": "gelu"},
        {"conv": 32},
        {"max_pool": 2},
        "flatten",
        {"dense": 32},
    ],
    "epochs": 2,
    "batch_size": 32,
}
DRAW = np.random.default_rng(0)


def make_recipe(**changes):
    return Recipe.model_validate({**CNN, **changes})


def made_up(count=320):
    """Images of three classes, each bright in rows of its own."""
    y = np.arange(count) % 3
    x = DRAW.integers(0, 100, (count, 12, 12, 2))
    x[np.arange(12)[None, :] // 4 == y[:, None]] += 120
    return x.astype(np.uint8), y


@pytest.fixture(scope="module")
def data():
    (x_train, y_train), (x_val, y_val) = made_up(), made_up(90)
    return Data(x_train, y_train, x_val, y_val, ("a", "b", "c"))


def build(recipe):
    return models.build(recipe, (12, 12, 2), 3, 1)


@pytest.mark.parametrize("scale", [True, False])
def test_fused_batch_normalisation_is_keras_own(scale):
    images = DRAW.normal(3, 2, (16, 6, 5, 4)).astype(np.float32)
    outputs, averages = [], []
    for kind in (keras.layers.BatchNormalization, fused.BatchNormalization):
        layer = kind(momentum=0.9, scale=scale)
        for _ in range(3):
            outputs.append(np.asarray(layer(images, training=True)))
        outputs.append(np.asarray(layer(images, training=False)))
        averages.append([np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)])
    for plain, fast in zip(outputs[:4], outputs[4:], strict=True):
        np.testing.assert_allclose(plain, fast, atol=1e-4)
    np.testing.assert_allclose(averages[0], averages[1], rtol=1e-5)


def test_fused_batch_normalisation_that_is_frozen_keeps_and_uses_its_averages():
    images = DRAW.normal(3, 2, (16, 6, 5, 4)).astype(np.float32)
    for kind in (keras.layers.BatchNormalization, fused.BatchNormalization):
        layer = kind(trainable=False)
        layer.build(images.shape)
        layer.set_weights([np.full(4, value, np.float32) for value in (2, 1, 0.5, 4)])
        before = layer.get_weights()
        output = np.asarray(layer(images, training=True))
        np.testing.assert_allclose(output, (images - 0.5) / (4 + 1e-3) ** 0.5 * 2 + 1, atol=1e-5)
        np.testing.assert_array_equal(layer.get_weights(), before)


def test_fused_layers_leave_to_keras_what_they_do_not_compute():
    images = keras.ops.convert_to_tensor(DRAW.normal(size=(8, 2, 2, 4)).astype(np.float32))
    kernel = DRAW.normal(size=(3, 3, 1, 4)).astype(np.float32)
    layers = [kind(4, 3, padding="same", groups=4) for kind in (keras.layers.Conv2D, fused.Conv2D)]
    for layer in layers:
        layer.build(images.shape)
    plain, fast = (layer.convolution_op(images, kernel) for layer in layers)
    np.testing.assert_allclose(plain, fast, atol=1e-6)
    dropped = np.asarray(fused.Dropout(0.5, noise_shape=(None, 1, 1, 1))(images, training=True))
    assert all(not one.any() or (one != 0).all() for one in dropped)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout_drops_its_share_anew_each_time_and_keeps_the_mean(dtype):
    layer = fused.Dropout(0.2, seed=1)
    images = tf.ones([99, 31, 7, 3], dtype)
    first, second = (np.asarray(tf.cast(layer(images, training=True), tf.float32)) for _ in "ab")
    for seen in (first, second):
        assert np.unique(seen).size == 2
        assert (seen == 0).mean() == pytest.approx(0.2, abs=0.01)
        assert seen.mean() == pytest.approx(1, abs=0.01)
        assert np.ptp((seen == 0).mean(axis=(0, 1, 2))) < 0.02  # no channel is favoured
    assert (first != second).mean() == pytest.approx(2 * 0.2 * 0.8, abs=0.02)
    np.testing.assert_array_equal(fused.Dropout(0.2, seed=1)(images, training=True), first)
    np.testing.assert_array_equal(layer(images, training=False), images)


@pytest.mark.parametrize("shape", [(30, 5), (3, 3, 4, 6)])
@pytest.mark.parametrize("limit", [0.5, 3, 100])
def test_a_fused_max_norm_is_keras_own(shape, limit):
    kernel = DRAW.normal(size=shape).astype(np.float32)
    plain, fast = (kind(limit)(kernel) for kind in (keras.constraints.MaxNorm, fused.MaxNorm))
    np.testing.assert_allclose(plain, fast, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 3), (3, 3), (4, 5), (9, 9)])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_convolution_of_few_pixels_is_keras_own(shape, size, strides, padding):
    if padding == "valid" and size > min(shape):
        pytest.skip("nothing is left")
    images = keras.ops.convert_to_tensor(DRAW.normal(size=(8, *shape, 4)).astype(np.float32))
    kernel = keras.Variable(DRAW.normal(size=(size, size, 4, 6)).astype(np.float32))
    answers = []
    for kind in (keras.layers.Conv2D, fused.Conv2D):
        layer = kind(6, size, strides=strides, padding=padding)
        layer.build(images.shape)
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = layer.convolution_op(images, kernel.value)
            loss = tf.reduce_sum(output**2)
        answers.append([output, *tape.gradient(loss, [images, kernel.value])])
    for plain, fast in zip(*answers, strict=True):
        np.testing.assert_allclose(plain, fast, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("pool", [{"max_pool": 2}, {"max_pool": 3, "padding": "same"}])
def test_relu_may_leave_its_gradient_to_the_pooling(pool, data):
    """The bias makes windows that are 0 throughout, as others are only in part."""
    recipe = make_recipe(layers=[{"conv": 6}, pool, {"conv": 4}, "flatten"])
    model = build(recipe)
    model.layers[2].bias.assign([-1, -0.3, -0.1, 0, 0.1, 1])
    made = twin(model, "float32")
    assert made.layers[3].follows_relu
    both = steps().gradients((model, made), recipe, data.x_train, data.y_train)
    for plain, fast in zip(*both, strict=True):
        np.testing.assert_allclose(plain, fast, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_twin_has_the_weights_the_answers_and_the_gradients(precision, data):
    model = build(make_recipe())
    made = twin(model, precision)
    for a, b in zip(model.weights, made.weights, strict=True):
        assert a.path.partition("/")[2] == b.path.partition("/")[2]
        assert b.dtype == "float32"
        np.testing.assert_array_equal(a, b)
    computed = {layer.compute_dtype for layer in made.layers[2:-1]}
    assert computed == {precision}
    assert {made.layers[1].compute_dtype, made.layers[-1].compute_dtype} == {"float32"}
    answers = [np.asarray(one(data.x_val)) for one in (model, made)]
    allowed = 1e-5 if precision == "float32" else 0.02
    np.testing.assert_allclose(answers[0], answers[1], atol=allowed)
    assert agreement(model, made, make_recipe(), data.x_train, data.y_train).suffices


def test_a_twin_with_other_gradients_is_found_out(data):
    model = build(make_recipe())
    wrong = twin(model, "float32")
    wrong.get_layer("dense_7").activation = keras.activations.sigmoid
    found = agreement(model, wrong, make_recipe(), data.x_train, data.y_train)
    assert not found.suffices
    assert str(found).startswith(f"{found.cosine:.3f} (")
    assert found.variable.partition("/")[0] in {layer.name for layer in model.layers}


def test_how_alike_gradients_are_does_not_depend_on_the_seed_and_changes_no_weight(data):
    found = set()
    for seed in range(2):
        model = models.build(make_recipe(), (12, 12, 2), 3, seed)
        made, before = twin(model, "bfloat16"), model.get_weights()
        found.add(agreement(model, made, make_recipe(), data.x_train, data.y_train))
        for one in (model, made):
            for a, b in zip(before, one.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    assert len(found) == 1


def test_where_bfloat16_is_computed_wrongly_float32_trains(data, monkeypatch):
    recipe = make_recipe(precision="bfloat16")
    monkeypatch.setattr("pipeline.training.twin.computes_bfloat16", lambda: True)
    assert fit(build(recipe), recipe, data, seed=0).precision == "bfloat16"
    monkeypatch.setattr("pipeline.training.twin.computes_bfloat16", lambda: False)
    assert fit(build(recipe), recipe, data, seed=0).precision == "float32"
    gradients = steps().gradients

    def wrong_in_the_second_model(*arguments):
        first, second = gradients(*arguments)
        return first, [-gradient for gradient in second]

    monkeypatch.setattr("pipeline.training.twin.computes_bfloat16", lambda: True)
    monkeypatch.setattr(steps(), "gradients", wrong_in_the_second_model)
    with pytest.warns(UserWarning, match=r"gradients in bfloat16 differ .* cosine is -\d"):
        history = fit(build(recipe), recipe, data, seed=0)
    assert history.precision == "float32"
    assert history.agreement
    assert history.agreement.startswith("-")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_kept_is_the_plain_model_in_float32(precision, data, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.training.twin.computes_bfloat16", lambda: True)
    recipe = make_recipe(precision=precision)
    model = build(recipe)
    history = fit(model, recipe, data, seed=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert {layer.compute_dtype for layer in loaded.layers[1:]} == {"float32"}
    assert {type(layer).__module__.partition(".")[0] for layer in loaded.layers} == {"keras"}
    right = np.asarray(loaded(data.x_val)).argmax(axis=1) == data.y_val
    assert right.mean() == pytest.approx(history.kept.val_accuracy, abs=0.05)
    assert right.mean() > 0.9


@pytest.mark.parametrize("layers", [["flatten", {"dense": 16}], CNN["layers"]])
def test_xla_trains_the_same(layers, data, monkeypatch):
    recipe = make_recipe(layers=layers)
    ends = []
    for repaid in (10**9, 0):
        monkeypatch.setattr(steps(), "STEPS_WORTH_XLA", repaid)
        model = build(recipe)
        fit(model, recipe, data, seed=0)
        ends.append(model.get_weights())
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
