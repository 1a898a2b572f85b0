import keras
import numpy as np
import pytest

from pipeline.models.optimizers import OPTIMIZERS
from pipeline.models.recipes import Recipe, Schedule
from pipeline.training.optimizers import optimizer_of, schedule_of


def make_recipe(**changes):
    return Recipe.model_validate({"layers": ["flatten"], "epochs": 1, **changes})


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [1, 1, 1]),
        ({"name": "inverse_time", "decay": 0.5}, [1, 1 / 26, 1 / 50.5]),
        ({"name": "triangular", "warmup": 0.5}, [0.02, 1, 0.02]),
        ({"name": "cosine", "final": 0.5}, [1, 0.75, 0.5]),
    ],
)
def test_a_schedule_covers_all_steps(schedule, expected):
    recipe = make_recipe(schedule=schedule, optimizer={"name": "sgd", "learning_rate": 1})
    optimizer = optimizer_of(recipe, total_steps=100)
    rates = []
    for step in (0, 49 if "warmup" in schedule else 50, 99):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, expected, atol=0.03)


def test_muon_makes_the_updates_of_kernels_orthogonal():
    rate, ratio = 0.1, 0.2  # the ratio is Keras' own
    layers = [keras.layers.Conv2D(8, 3), keras.layers.Dense(8, name="hidden")]
    layers.append(keras.layers.Dense(8, name="probabilities"))
    for layer, shape in zip(layers, [(None, 5, 5, 4), (None, 20), (None, 20)], strict=True):
        layer.build(shape)
    variables = [variable for layer in layers for variable in layer.variables]
    before = [np.array(variable) for variable in variables]
    settings = {"name": "muon", "learning_rate": rate, "weight_decay": 0}
    draw = np.random.default_rng(0)
    gradients = [draw.normal(size=v.shape).astype(np.float32) for v in variables]
    optimizer_of(make_recipe(optimizer=settings), 1).apply(
        [keras.ops.convert_to_tensor(gradient) for gradient in gradients], variables
    )
    moved = [a - np.asarray(b) for a, b in zip(before, variables, strict=True)]
    conv, _, hidden, _, output, bias = (each.reshape(-1, each.shape[-1]) for each in moved)
    for update in (conv, hidden):
        scale = rate * ratio * np.sqrt(len(update))
        singular = np.linalg.svd(update / scale, compute_uv=False)
        assert 0.6 < singular.min() <= singular.max() < 1.3
    for update in (output, bias):  # as AdamW: each number by the learning rate, at first
        np.testing.assert_allclose(np.abs(update), rate, rtol=0.01)
    assert all((a * b).sum() > 0 for a, b in zip(moved, gradients, strict=True))


@pytest.mark.parametrize(
    "name", [kind.name for kind in OPTIMIZERS if kind.keras_class and not kind.variant]
)
def test_an_optimizer_has_keras_defaults_unless_told_otherwise(name):
    ours, default = optimizer_of(make_recipe(optimizer=name), 1), keras.optimizers.get(name)
    assert isinstance(ours, type(default))
    assert ours.get_config() | {"name": ""} == default.get_config() | {"name": ""}


def test_what_the_recipe_says_arrives():
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    config = optimizer_of(make_recipe(optimizer={"name": "sgd", **settings}), 1).get_config()
    assert {key: config[key] for key in settings} == settings


def test_weight_decay_shrinks_kernels_and_spares_biases():
    settings = {"name": "sgd", "learning_rate": 1, "weight_decay": 0.1}
    layer = keras.layers.Dense(2, bias_initializer="ones")
    layer.build((None, 3))
    kernel = layer.kernel.numpy()
    optimizer = optimizer_of(make_recipe(optimizer=settings), 1)
    optimizer.apply([keras.ops.zeros_like(v) for v in layer.variables], layer.variables)
    np.testing.assert_allclose(layer.kernel.numpy(), 0.9 * kernel, rtol=1e-5)
    np.testing.assert_array_equal(layer.bias.numpy(), 1)


def test_a_schedule_survives_saving():
    rate = schedule_of(Schedule(name="cosine", warmup=0.1), 0.001, 50)
    settings = keras.optimizers.schedules.serialize(rate)
    assert float(keras.optimizers.schedules.deserialize(settings)(7)) == float(rate(7))
