import hashlib
import json

import keras
import numpy as np
import pytest

from pipeline.errors import TrainingError
from pipeline.models import build as models
from pipeline.models.layers import layer_kind
from pipeline.models.parts import core
from pipeline.models.recipes import Recipe
from pipeline.params.params import load_params

RECIPES = load_params().recipes
TUTORIALS = {
    ("fashion_mnist", "dense"): ((28, 28, 1), 59_130, "flatten dense dense dense dense dense"),
    ("fashion_mnist", "cnn"): (
        (28, 28, 1),
        390_410,
        "conv conv max_pool conv max_pool conv flatten",
    ),
    ("mnist", "cnn"): (
        (28, 28, 1),
        93_322,
        "conv max_pool conv max_pool conv flatten dense",
    ),
    ("cifar10", "dense"): ((32, 32, 3), 1_841_162, "flatten dense dense"),
    ("cifar10", "cnn"): (
        (32, 32, 3),
        4_210_090,
        "conv dropout conv max_pool flatten dense dropout",
    ),
    ("cifar10", "cnn_bn"): (
        (32, 32, 3),
        2_397_226,
        "conv batch_norm conv batch_norm max_pool " * 3 + "flatten dropout dense dropout",
    ),
}
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1)}


def recipe(*layers):
    return Recipe.model_validate({"layers": layers, "epochs": 1})


def build(*layers, shape=(8, 8, 1), num_classes=3, seed=0):
    return models.build(recipe(*layers), shape, num_classes, seed)


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", TUTORIALS, ids="/".join)
def test_a_tutorial_recipe_is_the_tutorials_layer_for_layer(name):
    shape, parameters, kinds = TUTORIALS[name]
    dataset, model = name
    tutorial = RECIPES[dataset][model]

    assert [layer_kind(layer) for layer in tutorial.layers] == kinds.split()
    built = models.build(tutorial, shape, 10, 0)
    assert built.count_params() == parameters
    assert [layer.name.rsplit("_", 1)[0] for layer in built.layers[2:-1]] == kinds.split()


# Of each recipe that ships the parameters of its model and a digest of its layers, which change
# only together with the accuracies in the README.
SHIPPED = {
    "default.dense": (201_482, "0c7bc13764d8"),
    "default.cnn": (95_210, "bc61c185ec4e"),
    "default.pretrained": (3_425_834, "1167b86568e3"),
    "digits.dense": (167_178, "a1ac2c68e31a"),
    "digits.cnn": (94_314, "6372e27240b5"),
    "mnist.dense": (235_146, "8dc4745044d3"),
    "mnist.cnn": (93_322, "0e74bfc19bc5"),
    "mnist.fast": (567_466, "d104e5d50e36"),
    "mnist.best": (567_466, "d104e5d50e36"),
    "fashion_mnist.dense": (59_130, "9c91576b5567"),
    "fashion_mnist.cnn": (390_410, "47c52f479c58"),
    "fashion_mnist.fast": (567_466, "d104e5d50e36"),
    "fashion_mnist.best": (1_492_138, "b5e22b340302"),
    "cifar10.dense": (1_841_162, "3871f2363a21"),
    "cifar10.cnn": (4_210_090, "779c17f3e438"),
    "cifar10.cnn_bn": (2_397_226, "5072bf08eeaf"),
    "cifar10.fast": (1_163_074, "fa63e0972a91"),
    "cifar10.best": (1_975_106, "4c728930573d"),
}


def in_short(model):
    """The layers of Keras in order, each as what it computes; names are left out."""
    keys = "filters kernel_size strides padding pool_size units activation rate momentum scale"
    for layer in model.layers:
        config = layer.get_config()
        constraint = getattr(layer, "kernel_constraint", None)
        yield (
            type(layer).__name__,
            {key: config[key] for key in keys.split() if key in config},
            [list(weight.shape) for weight in layer.weights],
            [list(weight.shape) for weight in layer.trainable_weights],
            constraint and constraint.get_config(),
        )


@pytest.mark.parametrize("dataset", RECIPES)
def test_the_models_of_the_recipes_are_what_they_were(dataset):
    shape, found = SHAPES.get(dataset, (32, 32, 3)), {}
    for name, entry in RECIPES[dataset].items():
        model = core(models.build(entry, shape, 10, 0))
        digest = hashlib.sha256(json.dumps([*in_short(model)]).encode()).hexdigest()[:12]
        found[f"{dataset}.{name}"] = (model.count_params(), digest)
    assert found == {name: row for name, row in SHIPPED.items() if name.startswith(f"{dataset}.")}


BLOCK = {"conv_block": 6, "kernel_size": 5, "momentum": 0.6, "scale": False, "activation": "silu"}
LAYERS_OF_THE_BLOCK = (
    {"conv": 6, "kernel_size": 5, "activation": "linear", "use_bias": False},
    {"batch_norm": True, "momentum": 0.6, "scale": False},
    {"activation": "silu"},
)


@pytest.mark.parametrize("pools", [False, True])
def test_a_block_is_its_layers_with_the_same_weights(pools):
    block, (convolution, *others) = BLOCK, LAYERS_OF_THE_BLOCK
    if pools:
        block, others = block | {"max_pool": 2}, [{"max_pool": 2}, *others]
    end = ({"dropout": 0.5}, {"conv": 3}, "flatten")
    short, long = build(block, *end, seed=4), build(convolution, *others, *end, seed=4)

    assert [*in_short(short)] == [*in_short(long)]
    for ours, theirs in zip(short.get_weights(), long.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert recipe(block).convolves
    assert not recipe("flatten", {"dense": 2}).convolves


@pytest.mark.parametrize("dataset", RECIPES)
def test_every_recipe_gives_probabilities(dataset):
    shape = SHAPES.get(dataset, (32, 32, 3))
    for entry in RECIPES[dataset].values():
        answers = models.build(entry, shape, 10, 0)(images(2, *shape)).numpy()
        assert answers.shape == (2, 10)
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("model", ["dense", "cnn"])
@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 9, 3), (224, 224, 3)])
@pytest.mark.parametrize("num_classes", [2, 300])
def test_the_default_recipes_fit_any_images(model, shape, num_classes):
    built = models.build(RECIPES["default"][model], shape, num_classes, 0)
    assert built(images(1, *shape)).shape == (1, num_classes)


def test_scaling_is_part_of_the_model():
    model = build("flatten")
    scaled = keras.Model(model.inputs[0], model.get_layer("scaled").output)
    np.testing.assert_allclose(scaled(np.full((1, 8, 8, 1), 255, np.uint8)), 1.0)


def test_a_seed_gives_the_same_weights():
    first, same, other = (build({"conv": 2}, "flatten", seed=seed) for seed in (1, 1, 2))
    x = images(1, 8, 8, 1)
    np.testing.assert_array_equal(first(x), same(x))
    assert np.abs(first(x) - other(x)).max() > 0


def test_the_properties_of_a_layer_arrive():
    model = build(
        {"conv": 2, "kernel_size": 5, "strides": 2, "padding": "valid", "use_bias": False},
        {"batch_norm": True, "momentum": 0.8},
        "flatten",
        {"dense": 3, "activation": "tanh", "max_norm": 1.5},
        {"dropout": 0.4},
    )
    conv, norm, _, dense, dropout = model.layers[2:-1]
    assert (conv.kernel_size, conv.strides, conv.padding, conv.use_bias) == (
        *((5, 5), (2, 2)),
        *("valid", False),
    )
    assert norm.momentum == 0.8
    assert (dense.activation.__name__, dense.kernel_constraint.max_value) == ("tanh", 1.5)
    assert dropout.rate == 0.4


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([{"max_pool": 2}] * 4, "layer 4, max_pool, does not fit shape \\(1, 1, 1\\)"),
        ([{"conv": 2, "kernel_size": 9, "padding": "valid"}], "layer 1, conv, .* \\(8, 8, 1\\)"),
        (["flatten", {"conv": 2}], "layer 2, conv, does not fit shape \\(64,\\)"),
        (["flatten", {"conv_block": 2}], "layer 2, conv_block \\(conv\\), .* shape \\(64,\\)"),
        (
            [{"max_pool": 8}, {"conv_block": 2, "max_pool": 2}],
            "layer 2, conv_block \\(max_pool\\), does not fit shape \\(1, 1, 2\\)",
        ),
        ([{"conv": 2}], "end with shape \\(8, 8, 2\\).*add flatten"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, reason):
    with pytest.raises(TrainingError, match=reason) as raised:
        build(*layers)
    assert "\n" not in str(raised.value)


def test_one_class_is_no_classifier():
    with pytest.raises(TrainingError, match="at least 2 classes; received 1"):
        build("flatten", num_classes=1)


@pytest.mark.parametrize(("views", "count"), [("flip", 2), ("flip_and_shift", 6)])
def test_a_model_of_views_answers_with_their_mean(views, count, tmp_path):
    plain = Recipe.model_validate({"layers": [{"conv": 4}, "flatten"], "epochs": 1})
    model = models.build(
        plain.model_copy(update={"test_time_augmentation": views}), (8, 6, 3), 3, 0
    )
    once = core(model)
    assert core(once) is once
    x = images(5, 8, 6, 3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    seen = [x, padded[:, :8, :6], padded[:, 2:, 2:]][: count // 2]
    answers = [once(view).numpy() for view in (*seen, *(view[:, :, ::-1] for view in seen))]
    assert len(answers) == count
    np.testing.assert_allclose(model(x).numpy(), np.mean(answers, axis=0), atol=1e-6)
    assert model.count_params() == once.count_params()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded(x), model(x))


def every_recipe():
    return [(dataset, name) for dataset, models in RECIPES.items() for name in models]


# Those of a backbone are counted in test_backbones.
@pytest.mark.parametrize(
    ("dataset", "name"), [r for r in every_recipe() if not RECIPES[r[0]][r[1]].backbone]
)
def test_the_products_of_an_image_are_those_of_the_layers_of_keras(dataset, name):
    recipe, image_shape = RECIPES[dataset][name], SHAPES.get(dataset, (32, 32, 3))
    model = core(models.build(recipe, image_shape, 10, 0))
    expected = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            pixels = np.prod(layer.output.shape[1:-1], dtype=int)
            expected += int(pixels * np.prod(layer.kernel.shape))
    softmax = int(np.prod(model.get_layer("probabilities").kernel.shape))
    assert models.multiplications(recipe, image_shape) == expected - softmax


def test_only_small_convolutions_take_one_thread():
    small = {
        f"{dataset}.{name}"
        for dataset, name in every_recipe()
        if dataset in SHAPES and models.steps_are_small(RECIPES[dataset][name], SHAPES[dataset])
    }
    assert {"fashion_mnist.cnn", "digits.cnn"} <= small
    assert not {"fashion_mnist.dense", "mnist.cnn", "fashion_mnist.fast"} & small
