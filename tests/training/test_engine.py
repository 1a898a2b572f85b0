import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from pipeline.errors import TrainingError
from pipeline.models import build as models
from pipeline.models.optimizers import OPTIMIZERS
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params
from pipeline.training.backends.steps import steps
from pipeline.training.engine import Data, fit
from pipeline.training.feed import order
from pipeline.training.history import Epoch, Progress
from pipeline.training.optimizers import optimizer_of

# Those that train step by step, on any backend.
OF_KERAS = [kind.name for kind in OPTIMIZERS if kind.keras_class]

SMALL = {
    "layers": ["flatten", {"dense": 16}],
    "epochs": 2,
    "batch_size": 32,
}


def make_recipe(**changes):
    return Recipe.model_validate({**SMALL, **changes})


def split(x, y):
    return train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def digits():
    """Return the data of a fit, and the test images and labels that it does not see."""
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
    x_rest, x_test, y_rest, y_test = split(x, y)
    x_train, x_val, y_train, y_val = split(x_rest, y_rest)
    return Data(x_train, y_train, x_val, y_val, tuple("0123456789")), x_test, y_test


def few(data, train=100):
    """Few images to train on, and too few to validate on for a class to vanish from."""
    return Data(
        data.x_train[:train],
        data.y_train[:train],
        *(data.x_val[:60], data.y_val[:60]),
        data.class_names,
    )


def build(recipe, seed=0):
    return models.build(recipe, (8, 8, 1), 10, seed)


def measured(model, recipe, x, y):
    images = steps().put(x, y)
    return steps().compile_forward(model, recipe, *images)(*images)


def accuracy(model, recipe, x, y):
    return measured(model, recipe, x, y).accuracy


def recorded(monkeypatch):
    """Return a list that the indices of every call of the compiled steps are added to."""
    seen = []
    compile_training = steps().compile_training

    def record(*arguments):
        run = compile_training(*arguments)

        def run_and_record(x, y, rows, mirrored):
            seen.append(rows)
            return run(x, y, rows, mirrored)

        return run_and_record

    monkeypatch.setattr(steps(), "compile_training", record)
    return seen


@pytest.mark.parametrize(("name", "floor"), [("dense", 0.97), ("cnn", 0.98)])
def test_the_digits_recipes_reach_their_accuracy(name, floor, digits):
    data, x_test, y_test = digits
    shipped = load_params().recipes["digits"][name]
    reached = []
    for seed in range(2):
        model = build(shipped, seed)
        fit(model, shipped, data, seed=seed)
        reached.append(accuracy(model, shipped, x_test, y_test))
    assert np.mean(reached) >= floor


def test_a_history_row_is_what_keras_measures(digits):
    data = digits[0]
    model = build(make_recipe())
    seen: list[Epoch] = []
    history = fit(model, make_recipe(keep="last"), data, seed=0, on_epoch=seen.append)

    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, right = model.evaluate(data.x_val, data.y_val, verbose=0)
    assert tuple(seen) == history.epochs
    assert [row.epoch for row in seen] == [1, 2]
    assert seen[-1].val_loss == pytest.approx(loss, rel=1e-4)
    assert seen[-1].val_accuracy == pytest.approx(right)
    assert seen[1].loss < seen[0].loss
    assert all(row.seconds > 0 for row in seen)


@pytest.mark.parametrize(
    "optimizer", ["adam", "adamw", "rmsprop", {"name": "sgd", "momentum": 0.9}]
)
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_the_weights_are_those_of_keras_own_loop(optimizer, loss, digits):
    """100 images in batches of 32: the smaller last batch is trained on as well."""
    data, recipe = few(digits[0]), make_recipe(optimizer=optimizer, loss=loss, keep="last")
    ours, theirs = build(recipe), build(recipe)
    fit(ours, recipe, data, seed=3)

    theirs.compile(optimizer=optimizer_of(recipe, 8), loss=loss)
    for epoch in (1, 2):
        order = np.random.default_rng((3, epoch)).permutation(100)
        for start in range(0, 100, 32):
            rows = order[start : start + 32]
            y = data.y_train[rows]
            y = y if loss.startswith("sparse") else keras.utils.to_categorical(y, 10)
            theirs.train_on_batch(data.x_train[rows], y)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": {"3": 5, "8": 0.5}},
        {"loss": "categorical_crossentropy", "class_weights": "balanced"},
        {"loss": {"name": "focal", "gamma": 3}, "class_weights": {"0": 2}, "label_smoothing": 0.1},
    ],
)
def test_weights_and_focal_loss_are_those_of_keras(changes, digits):
    data, recipe = few(digits[0]), make_recipe(keep="last", **changes)
    ours, theirs = build(recipe), build(recipe)
    rows = fit(ours, recipe, data, seed=3).epochs

    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    if recipe.loss.name == "focal":
        loss = keras.losses.CategoricalFocalCrossentropy(
            gamma=3, alpha=0.25, label_smoothing=recipe.label_smoothing
        )
    balanced = compute_class_weight("balanced", classes=np.arange(10), y=data.y_train)
    weights = dict(enumerate(balanced))
    if isinstance(recipe.class_weights, dict):
        weights = {label: recipe.class_weights.get(str(label), 1.0) for label in range(10)}
    theirs.compile(optimizer=optimizer_of(recipe, 8), loss=loss)
    for epoch in (1, 2):
        indices, _ = order(3, epoch, 100, recipe.augmentation)
        for start in range(0, 100, 32):
            batch = indices[start : start + 32]
            y = keras.utils.to_categorical(data.y_train[batch], 10)
            theirs.train_on_batch(data.x_train[batch], y, class_weight=weights)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    # What is reported weighs all images the same.
    y = keras.utils.to_categorical(data.y_val, 10)
    expected = float(loss(y, ours.predict(data.x_val, verbose=0)))
    assert rows[-1].val_loss == pytest.approx(expected, rel=1e-4)


def test_a_weight_for_no_class_is_refused_before_the_first_epoch(digits):
    recipe = make_recipe(class_weights={"cat": 2})
    with pytest.raises(TrainingError, match=r"'cat', which is no class .*; allowed: 0, 1, 2"):
        fit(build(recipe), recipe, few(digits[0]), seed=0)


def test_balanced_sampling_trains_on_equally_many_of_each_class(digits, monkeypatch):
    data = digits[0]
    rare = np.concatenate(
        [np.flatnonzero(data.y_train != 3), np.flatnonzero(data.y_train == 3)[:5]]
    )
    data = Data(
        data.x_train[rare], data.y_train[rare], data.x_val[:60], data.y_val[:60], data.class_names
    )
    seen = recorded(monkeypatch)
    recipe = make_recipe(sampling="balanced", epochs=1)
    fit(build(recipe), recipe, data, seed=0)
    counts = np.bincount(data.y_train[np.concatenate([rows.ravel() for rows in seen])])
    assert counts.sum() == len(data.y_train)
    assert counts.max() - counts.min() <= 1


def test_every_image_is_seen_once_an_epoch_in_another_order(digits, monkeypatch):
    seen = recorded(monkeypatch)
    fit(build(make_recipe()), make_recipe(), few(digits[0]), seed=0)

    first, second = np.split(np.concatenate([rows.ravel() for rows in seen]), 2)
    assert sorted(first) == sorted(second) == list(range(100))
    assert list(first) != list(second)
    assert {rows.shape[1] for rows in seen} == {32, 4}


def test_progress_is_told_and_counts_all_phases(digits):
    reported: list[Progress] = []
    recipe = make_recipe(
        batch_size=4, then=({"epochs": 1, "augmentation": {"flip": "horizontal"}},)
    )
    fit(build(recipe), recipe, digits[0], seed=0, on_progress=reported.append)
    last = reported[-1]
    assert (last.epoch, last.epochs, last.step, last.steps) == (3, 3, 288, 288)
    assert last.seconds_left == 0
    assert reported[0].seconds_left > 0
    assert all(0 <= p.accuracy <= 1 and p.loss > 0 for p in reported)


def test_phases_share_the_schedule_and_the_optimizers_state(digits):
    plain = make_recipe(epochs=2, keep="last", schedule={"name": "cosine"})
    phased = make_recipe(epochs=1, then=({"epochs": 1},), keep="last", schedule={"name": "cosine"})
    one, two = build(plain), build(phased)
    rates = [
        [row.learning_rate for row in fit(m, r, few(digits[0]), seed=0).epochs]
        for m, r in ((one, plain), (two, phased))
    ]
    assert rates[0] == rates[1]
    assert rates[0][0] > rates[0][1] == 0
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_max_norm_and_batch_norm_work(digits):
    recipe = make_recipe(
        layers=[{"conv": 4}, "batch_norm", "flatten", {"dense": 16, "max_norm": 0.5}],
        optimizer={"name": "sgd", "learning_rate": 0.1},
    )
    model = build(recipe)
    fit(model, recipe, digits[0], seed=0)
    norms = np.linalg.norm(model.get_layer("dense_4").get_weights()[0], axis=0)
    assert norms.max() <= 0.5 + 1e-4
    assert np.abs(model.get_layer("batch_norm_2").moving_mean.numpy()).max() > 0.01


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_of_the_epoch_that_counts_are_kept(keep, digits):
    data = few(digits[0], 1000)
    recipe = make_recipe(epochs=8, keep=keep, optimizer={"name": "sgd", "learning_rate": 1.5})
    model = build(recipe)
    history = fit(model, recipe, data, seed=1)
    best = max(history.epochs, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert best.epoch < 8, "the case must be one in which the last epoch is not the best"
    assert history.kept == (best if keep == "best" else history.epochs[-1])
    assert accuracy(model, recipe, data.x_val, data.y_val) == pytest.approx(
        history.kept.val_accuracy
    )


def test_the_average_of_the_weights_is_validated_and_kept(digits):
    """With the averages of batch norm, and more of the weights at first than later."""
    data = few(digits[0])
    layers = [{"conv": 4}, "batch_norm", "flatten"]
    recipe = make_recipe(layers=layers, ema=0.5, keep="last", optimizer="sgd")
    ours, theirs = build(recipe), build(recipe)
    averages = ours.get_weights()
    history = fit(ours, recipe, data, seed=3)

    theirs.compile(optimizer=optimizer_of(recipe, 8), loss=recipe.loss.name)
    for number in range(8):
        rows, _ = order(3, number // 4 + 1, 100, recipe.augmentation)
        batch = rows[number % 4 * 32 :][:32]
        theirs.train_on_batch(data.x_train[batch], data.y_train[batch])
        share = 1 - min(0.5, (2 + number) / (11 + number))
        averages = [
            a + (w - a) * share for a, w in zip(averages, theirs.get_weights(), strict=True)
        ]
    for a, b, raw in zip(ours.get_weights(), averages, theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        assert not np.allclose(a, raw, rtol=1e-3, atol=1e-5)
    found = measured(ours, recipe, data.x_val, data.y_val)
    assert found.mean_loss == pytest.approx(history.kept.val_loss, rel=1e-5)


@pytest.mark.parametrize(
    "name",
    # One of each module that has optimizers; `make test-long` has all.
    [
        pytest.param(name, marks=() if name in ("adam", "muon") else pytest.mark.long)
        for name in OF_KERAS
    ],
)
@pytest.mark.parametrize(("key", "most"), [("clip_norm", 1e-4), ("clip_value", 1e-6)])
def test_gradients_are_clipped(name, key, most, digits, monkeypatch):
    """The gradients that the optimizer of a training gets, and what is left of them."""
    seen: list[float] = []
    clip = keras.optimizers.Optimizer._clip_gradients

    def recording(self, gradients):
        clipped = clip(self, gradients)
        values = tf.concat([tf.reshape(each, [-1]) for each in clipped], 0)
        tf.py_function(lambda v: seen.append(v.numpy()), [values], [])
        return clipped

    monkeypatch.setattr(keras.optimizers.Optimizer, "_clip_gradients", recording)
    recipe = make_recipe(optimizer={"name": name, key: most}, epochs=1)
    fit(build(recipe), recipe, few(digits[0]), seed=0)
    assert len(seen) == 4
    for values in seen:
        reached = np.linalg.norm(values) if key == "clip_norm" else np.abs(values).max()
        assert reached == pytest.approx(most, rel=1e-3)


def test_a_training_ends_when_no_epoch_is_better_for_too_long(digits):
    standing = {"name": "sgd", "learning_rate": 1e-9}
    recipe = make_recipe(optimizer=standing, epochs=9, patience=2)
    reported: list[Progress] = []
    history = fit(build(recipe), recipe, few(digits[0]), seed=0, on_progress=reported.append)
    assert [row.epoch for row in history.epochs] == [1, 2, 3]
    assert history.kept.epoch == 1
    assert history.stopped

    moving = make_recipe(epochs=4, patience=4)
    history = fit(build(moving), moving, few(digits[0]), seed=0)
    assert len(history.epochs) == 4
    assert not history.stopped


def test_patience_ends_a_phase_and_leaves_the_rates_of_the_next_ones(digits):
    phases = {"epochs": 4, "then": ({"epochs": 5}, {"epochs": 3})}
    schedule = {"name": "cosine", "warmup": 0.5}
    standing = {"name": "sgd", "learning_rate": 1e-9}
    plain = make_recipe(optimizer=standing, schedule=schedule, **phases)
    recipe = make_recipe(optimizer=standing, schedule=schedule, patience=1, **phases)
    all_epochs, epochs = (
        fit(build(each), each, few(digits[0]), seed=0).epochs for each in (plain, recipe)
    )
    assert [row.epoch for row in epochs] == [1, 2, 3, 4]
    planned = [1, 2, 5, 10]
    expected = [all_epochs[number - 1].learning_rate for number in planned]
    assert [row.learning_rate for row in epochs] == pytest.approx(expected)


def test_label_smoothing_raises_the_least_loss(digits):
    recipe = make_recipe(loss="categorical_crossentropy", label_smoothing=0.2, epochs=1)
    plain = make_recipe(loss="categorical_crossentropy", epochs=1)
    model, data = build(plain), (digits[0].x_val, digits[0].y_val)
    assert measured(model, recipe, *data).loss != measured(model, plain, *data).loss


@pytest.mark.parametrize(
    "augmentation", [{}, {"shift": 0.2, "rotation": 30, "crop": 1}, {"mixup": 1.0, "cutmix": 1.0}]
)
def test_only_training_images_are_augmented(augmentation, digits):
    """With a learning rate of next to nothing both measure the same weights on the same images."""
    data = few(digits[0])
    recipe = make_recipe(
        epochs=1,
        optimizer={"name": "sgd", "learning_rate": 1e-9},
        augmentation=augmentation,
        class_weights="balanced",
    )
    same = Data(data.x_train, data.y_train, data.x_train, data.y_train, data.class_names)
    row = fit(build(recipe), recipe, same, seed=0).kept
    assert (row.loss == pytest.approx(row.val_loss, rel=1e-4)) is not bool(augmentation)


def test_a_loss_that_is_not_finite_stops_at_once(digits):
    recipe = make_recipe(
        layers=["flatten", {"dense": 16, "activation": "linear"}],
        optimizer={"name": "sgd", "learning_rate": 10},
        epochs=30,
    )
    with pytest.raises(TrainingError, match=r"became (nan|inf) in .*epoch \d+.* rate 10: lower"):
        fit(build(recipe), recipe, digits[0], seed=0)


def test_a_class_that_vanished_is_named(digits):
    data = digits[0]
    recipe = make_recipe(epochs=1, optimizer={"name": "sgd", "learning_rate": 1e-9})
    with pytest.raises(TrainingError, match=r"never predicts .*9.* in 288 validation images"):
        fit(build(recipe), recipe, data, seed=0)


def _with(data, **changes):
    return Data(**{**vars(data), **changes})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda d: {"x_train": d.x_train[:0], "y_train": d.y_train[:0]},
            "train split has no images",
        ),
        (lambda d: {"x_val": d.x_val[:0], "y_val": d.y_val[:0]}, "val split has no images"),
        (lambda d: {"x_train": d.x_train / 255}, r"float64 \(8, 8, 1\); the model takes uint8"),
        (lambda d: {"x_val": d.x_val[:, :4]}, r"val images are uint8 \(4, 8, 1\)"),
        (lambda d: {"y_train": d.y_train[1:]}, r"1149 images but labels of shape \(1148,\)"),
        (lambda d: {"y_train": d.y_train + 1}, "label 10 of train image .* allowed: 0 to 9"),
        (lambda d: {"y_val": d.y_val - 1}, "label -1 of val image .* allowed: 0 to 9"),
        (lambda d: {"y_train": np.where(d.y_train == 3, 4, d.y_train)}, "no training image of 3:"),
    ],
)
def test_data_that_cannot_teach_are_refused_before_the_first_epoch(change, reason, digits):
    data = digits[0]
    rows: list[Epoch] = []
    recipe = make_recipe()
    with pytest.raises(TrainingError, match=reason):
        fit(build(recipe), recipe, _with(data, **change(data)), seed=0, on_epoch=rows.append)
    assert not rows
