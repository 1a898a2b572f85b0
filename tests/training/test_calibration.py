"""Temperature scaling: on answers of which it is known how certain they should be."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pipeline.models.build import build
from pipeline.models.parts import core
from pipeline.models.recipes import OUTPUT_LAYER, Recipe
from pipeline.training.calibration import calibrate
from tests.evaluated import made

__all__ = ["made"]
CLASSES = 4


def linear_model(strength, views="none"):
    """Build a model whose logits are its pixels, `strength` for white."""
    recipe = Recipe(layers=("flatten",), epochs=1, test_time_augmentation=views)
    model = build(recipe, (1, CLASSES, 1), CLASSES, seed=0)
    layer = core(model).get_layer(OUTPUT_LAYER)
    layer.kernel.assign(strength * np.eye(CLASSES))
    return model


def images_and_labels(n, strength, seed):
    """Draw images, and labels as often as softmax of `strength` says."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 1, CLASSES, 1), np.uint8)
    p = softmax(strength * x.reshape(n, CLASSES) / 255, axis=1)
    return x, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=CLASSES - 1)


def answers(model, x):
    return np.asarray(model(x))


def cross_entropy(model, x, y):
    return -np.log(answers(model, x)[np.arange(len(y)), y]).mean()


@settings(max_examples=4, deadline=None)
@given(st.sampled_from([0.4, 2.0, 4.0]), st.integers(0, 1000))
def test_the_temperature_by_which_confidence_is_off_is_found_and_no_class_changes(factor, seed):
    x, y = images_and_labels(5000, 5.0, seed)
    model = linear_model(5.0 * factor)
    before, loss = answers(model, x), cross_entropy(model, x, y)
    found = calibrate(model, x, y)
    assert found.temperature == pytest.approx(factor, rel=0.1)
    assert found.before.loss == pytest.approx(loss, rel=1e-4)
    assert found.after.loss == pytest.approx(cross_entropy(model, x, y), rel=1e-4)
    assert found.after.loss < found.before.loss
    assert found.after.calibration_error < 0.03 < found.before.calibration_error
    assert (answers(model, x).argmax(axis=1) == before.argmax(axis=1)).all()


def test_what_chance_may_explain_is_left_as_it_is():
    x, y = images_and_labels(100, 5.0, 1)
    model = linear_model(5.5)
    found = calibrate(model, x, y)
    assert found.temperature == 1
    assert found.before == found.after
    assert (core(model).get_layer(OUTPUT_LAYER).kernel == 5.5 * np.eye(CLASSES)).numpy().all()


def test_a_split_without_a_mistake_leaves_a_doubt_of_one_more_image():
    x = np.zeros((200, 1, CLASSES, 1), np.uint8)
    y = np.arange(200) % CLASSES
    x[np.arange(200), 0, y, 0] = 255
    model = linear_model(2.0)
    calibrate(model, x, y)
    confidence = answers(model, x).max(axis=1).mean()
    assert confidence == pytest.approx(200 / 201, abs=1e-3)


def test_with_views_the_average_that_is_served_is_fitted(tmp_path):
    x, y = images_and_labels(3000, 5.0, 2)
    model = linear_model(20.0, views="flip")
    before = cross_entropy(model, x, y)
    found = calibrate(model, x, y)
    model.save(tmp_path / "model.keras")
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert found.before.loss == pytest.approx(before, rel=1e-4)
    assert cross_entropy(saved, x, y) == pytest.approx(found.after.loss, rel=1e-4)
    for other in (0.8, 1.25):
        layer = core(model).get_layer(OUTPUT_LAYER)
        layer.kernel.assign(20.0 / found.temperature / other * np.eye(CLASSES))
        assert cross_entropy(model, x, y) > found.after.loss


def test_a_training_tells_what_it_changed(made):
    from pipeline.tracking.store import connect

    trained = made.models["dense"][0]
    run = connect().get_run(trained.run.run_id).data
    assert run.metrics["temperature"] == trained.run.calibration["temperature"]
    assert run.metrics["val_cross_entropy"] == pytest.approx(trained.run.val_loss)
    assert run.metrics["val_calibration_error"] >= 0
