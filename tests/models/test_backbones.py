"""Each backbone: features, preprocessing within the model, what is trained, its weights."""

import inspect
import io
import os
import re
import tarfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format
from matplotlib import get_data_path
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from pipeline.errors import ArtifactError, TrainingError
from pipeline.models import build as models
from pipeline.models.backbones import build as backbones
from pipeline.models.backbones.backbones import BACKBONES
from pipeline.models.backbones.fetch import fetch
from pipeline.models.backbones.layer import Backbone
from pipeline.models.backbones.torch_file import read_torch
from pipeline.models.parts import backbone_and_head, core
from pipeline.models.recipes import Recipe
from tests.conftest import ROOT

# Their real weights take no download.
LITE0 = BACKBONES[0]
SMALLEST = min(BACKBONES, key=lambda kind: kind.multiplications)


@pytest.fixture
def random_weights(monkeypatch):
    """Leave the weights as Keras draws them: what is tested here holds for any."""
    monkeypatch.setattr(backbones, "_load", lambda *_: None)


def layer_of(kind, trainable="none"):
    return Backbone(backbone=kind.name, alpha=kind.alpha, trainable=trainable)


def images(count, *shape):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def name_of(kind):
    return f"{kind.name}-{kind.alpha}" if kind.alpha else kind.name


def multiplications(model):
    """Each kernel is multiplied once for each place of the output."""
    return sum(
        int(np.prod(weight.shape)) * int(np.prod(layer.output.shape[1:-1]))
        for layer in model.layers
        for weight in layer.weights
        if len(weight.shape) > 1
    )


# The large ones take seconds each.
SMALL = ("efficientnet_lite0", "mobilenet_v3_small")
EVERY = [
    pytest.param(kind, id=name_of(kind), marks=() if kind.name in SMALL else pytest.mark.long)
    for kind in BACKBONES
]


# For tests that take long with each.
ONE_OF_ALL = [
    pytest.param(kind, id=name_of(kind), marks=() if kind is SMALLEST else pytest.mark.long)
    for kind in BACKBONES
]


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("kind", EVERY)
def test_every_backbone_keeps_its_contract(kind):
    keras.utils.set_random_seed(0)
    model = backbones.build(layer_of(kind), (224, 224, 3))
    assert model.output.shape == (None, kind.features)
    assert layer_of(kind).output_shape((224, 224, 3)) == (1, 1, kind.features)
    assert multiplications(model) == kind.multiplications
    assert layer_of(kind).multiplications((112, 224, 3)) == kind.multiplications // 2
    made_by_keras = [type(one).__name__.lower() for one in model.operations]
    assert not [
        one.name  # hangs on what was built before in this process
        for one, kind_of in zip(model.operations, made_by_keras, strict=True)
        if re.sub(r"_\d+$", "", one.name).replace("_", "") == kind_of
    ]
    assert not model.trainable_weights

    pixels = images(2, 224, 224, 3)
    assert_scales_as_keras_does(kind, model, pixels)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_array_equal(model(pixels, training=True), model(pixels))
    assert not any(layer.rate for layer in dropouts)

    backbones.set_trainable(model, "all")
    with tf.GradientTape() as tape:
        squares = tf.reduce_sum(tf.square(model(pixels, training=True)))
    gradients = tape.gradient(squares, model.trainable_variables)
    largest = {
        variable.path: 0 if gradient is None else float(np.abs(gradient).max())
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }
    assert min(largest.values()) > 0, largest


def assert_scales_as_keras_does(kind, model, pixels):
    """Compare the first layers with the function of Keras that prepares pixels for a network."""
    module = inspect.getmodule(backbones.architecture(kind))
    # PyTorch's weights want what those of MobileNet want.
    prepare = getattr(module, "preprocess_input", keras.applications.mobilenet.preprocess_input)
    expected = prepare(pixels.astype(np.float32))
    if kind.scale:
        found = keras.Model(model.input, model.get_layer("scaled").output)(pixels)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:
        # Keras leaves it to the network, which has layers for it.
        np.testing.assert_array_equal(expected, pixels)
        kinds = (keras.layers.Rescaling, keras.layers.Normalization)
        assert any(isinstance(layer, kinds) for layer in model.layers)


@pytest.mark.skipif("BACKBONE_MIRROR" not in os.environ, reason="BACKBONE_MIRROR is not set")
@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind.weights.sha256], ids=name_of)
def test_the_published_weights_are_loaded(kind):
    model = backbones.build(layer_of(kind), (64, 64, 1))
    assert backbones.sha256_of(model) == kind.weights.sha256


def test_other_weights_than_those_asked_for_are_refused(monkeypatch, tmp_path):
    (kind,) = (kind for kind in BACKBONES if kind.name == "mobilenet_v1")
    file = tmp_path / kind.weights.file
    monkeypatch.setenv("BACKBONE_MIRROR", str(tmp_path))
    file.write_bytes(b"no such format")
    with pytest.raises(ArtifactError, match="does not have the weights asked for"):
        backbones.build(layer_of(kind), (32, 32, 3))
    network = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
    with h5py.File(file, "w") as opened:
        legacy_h5_format.save_weights_to_hdf5_group(opened, network)
    with pytest.raises(ArtifactError, match=f"sha256 [0-9a-f]+, not {kind.weights.sha256}"):
        backbones.build(layer_of(kind), (32, 32, 3))


def lite0_names(pictures):
    """Return the class of ImageNet of each picture, by the classifier that the file has too."""
    model = backbones.build(layer_of(LITE0), (224, 224, 3))
    fitted = np.stack([np.asarray(ImageOps.fit(p.convert("RGB"), (224, 224))) for p in pictures])
    tensors = read_torch(fetch(LITE0.weights))
    scores = model(fitted).numpy() @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    return scores.argmax(axis=1).tolist()


def test_lite0_names_pictures_of_things_rightly():
    admiral = Image.open(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")
    palace, flower = map(Image.fromarray, load_sample_images().images)
    assert lite0_names([admiral, palace, flower]) == [652, 698, 985]  # a military uniform, daisy


@pytest.mark.skipif("DATASET_MIRROR" not in os.environ, reason="needs DATASET_MIRROR")
def test_lite0_names_daisies_rightly():
    file = Path(os.environ["DATASET_MIRROR"], "flower_photos", "flower_photos.tar.gz")
    with tarfile.open(file) as archive:
        daisies = sorted(name for name in archive.getnames() if name.startswith("daisy/"))[:60]
        files = filter(None, map(archive.extractfile, daisies))
        pictures = [Image.open(io.BytesIO(file.read())) for file in files]
        assert lite0_names(pictures).count(985) >= 50


@pytest.mark.usefixtures("random_weights")
def test_a_model_comes_apart_into_backbone_and_head():
    layers = [{"backbone": "mobilenet_v1"}, {"dropout": 0.2}, {"dense": 8}]
    views = {"test_time_augmentation": "flip"}
    recipe = Recipe.model_validate({"layers": layers, "epochs": 1, **views})
    model = core(models.build(recipe, (48, 40, 1), 2, seed=0))
    backbone, head = backbone_and_head(model)
    pixels = images(3, 48, 40, 1)
    features = backbone(pixels)
    np.testing.assert_array_equal(head(features), model(pixels))
    trained = {v.path for v in model.trainable_variables}
    assert trained == {v.path for v in head.trainable_variables}
    assert len(trained) == 4


@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 8, 1), (64, 64, 4)])
def test_images_that_a_backbone_does_not_take_are_refused(shape):
    with pytest.raises(TrainingError, match="at least 32 by 32 pixels with 1 or 3 channels"):
        backbones.build(layer_of(LITE0), shape)


@pytest.mark.parametrize("kind", BACKBONES, ids=name_of)
def test_every_backbone_is_documented(kind):
    page = (ROOT / "docs" / "recipes.md").read_text()
    products, weights = f"{kind.multiplications / 1e6:,.0f}", r"\d+\.\d"
    cells = (f"`{kind.name}`", kind.alpha or ".", kind.features, weights, products)
    row = f"| {' | '.join(map(str, cells))} | {kind.weights.licence} |"
    assert re.search(rf"^{row.replace('|', '[|]')}$", page, re.M), f"docs/recipes.md lacks {row}"
