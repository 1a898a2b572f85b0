"""What the benchmarks compare is the same, and what the README says is what was measured."""

from pathlib import Path

import keras
import pytest

from benchmarks import accuracy_report
from benchmarks.bare import TUTORIALS
from pipeline.models import build as models
from pipeline.params.params import load_params
from pipeline.training.optimizers import optimizer_of

SHAPES = {
    "fashion_mnist": (28, 28, 1),
    "mnist": (28, 28, 1),
    "cifar10_images": (32, 32, 3),
}
SETTINGS = ("filters", "kernel_size", "strides", "padding", "units", "activation", "rate")


def what_it_computes(layer):
    """A layer without its name, and without how its weights begin."""
    config = layer.get_config()
    constraint = getattr(layer, "kernel_constraint", None)
    return (
        type(layer).__name__,
        {key: config[key] for key in SETTINGS if key in config},
        [weight.shape for weight in layer.weights],
        constraint and (type(constraint).__name__, constraint.get_config()),
    )


def how_it_updates(optimizer):
    config = optimizer.get_config()
    return {key: config[key] for key in config if key not in ("name", "learning_rate")}


def learning_rates(optimizer):
    rates = []
    for step in (0, 1, 1000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return rates


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_scripts_train_what_the_recipes_say(name):
    dataset, model = name.split(".")
    recipe, tutorial = load_params().recipe(dataset, model), TUTORIALS[name]
    ours = models.build(recipe, SHAPES[dataset], 10, 0)
    softmax = keras.layers.Dense(10, activation="softmax")
    theirs = keras.Sequential([keras.Input(SHAPES[dataset]), *tutorial.layers(), softmax])
    kinds = [what_it_computes(layer) for layer in ours.layers]
    assert kinds[0][0] == "InputLayer"
    assert kinds[1][0] == "Rescaling"
    assert kinds[2:] == [what_it_computes(layer) for layer in theirs.layers]
    assert recipe.batch_size == tutorial.batch_size
    assert (recipe.loss.name == "categorical_crossentropy") == tutorial.one_hot
    here, there = optimizer_of(recipe, 1, "float32"), tutorial.optimizer()
    assert isinstance(here, type(there))
    assert learning_rates(here) == pytest.approx(learning_rates(there))
    assert how_it_updates(here) == how_it_updates(there)


def test_the_readme_has_the_accuracies_that_were_measured():
    assert accuracy_report.table() in Path("README.md").read_text()
