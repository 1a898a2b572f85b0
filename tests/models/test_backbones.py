"""Each backbone: features, preprocessing within the model, what is trained, its weights."""

import keras
import numpy as np
import pytest

from pipeline.errors import TrainingError
from pipeline.models import build as models
from pipeline.models.backbones import build as backbones
from pipeline.models.backbones.backbones import BACKBONES
from pipeline.models.backbones.layer import Backbone
from pipeline.models.parts import backbone_and_head
from pipeline.models.recipes import Recipe
from pipeline.training.engine import Data, fit

# Their real weights take no download.
LITE0 = BACKBONES[0]


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


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("kind", BACKBONES, ids=name_of)
def test_every_backbone_keeps_its_contract(kind):
    keras.utils.set_random_seed(0)
    model = backbones.build(layer_of(kind), (224, 224, 3))
    assert model.output.shape == (None, kind.features)
    assert multiplications(model) == kind.multiplications
    assert layer_of(kind).multiplications((112, 224, 3)) == kind.multiplications // 2
    assert layer_of(kind).output_shape((224, 224, 3)) == (1, 1, kind.features)
    assert not model.trainable_weights


def test_lite0_trains_a_head_on_features_that_stay_as_they_are():
    labels = np.repeat([0, 1], 16)
    pixels = images(32, 48, 40, 1) // 2 + (100 * labels).astype(np.uint8)[:, None, None, None]
    recipe = Recipe.model_validate(
        {
            "layers": [{"backbone": "efficientnet_lite0"}],
            "optimizer": {"learning_rate": 0.01},
            "epochs": 5,
            "batch_size": 8,
        }
    )
    model = models.build(recipe, (48, 40, 1), 2, seed=0)
    backbone, head = backbone_and_head(model)
    before = backbone(pixels).numpy()
    data = Data(pixels, labels, pixels, labels, ("dark", "bright"))
    assert fit(model, recipe, data, seed=0).kept.val_accuracy > 0.9
    np.testing.assert_array_equal(backbone(pixels), before)
    np.testing.assert_array_equal(head(before), model(pixels))
    assert [v.path for v in model.trainable_variables] == [v.path for v in head.variables]


@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 8, 1), (64, 64, 4)])
def test_images_that_a_backbone_does_not_take_are_refused(shape):
    with pytest.raises(TrainingError, match="at least 32 by 32 pixels with 1 or 3 channels"):
        backbones.build(layer_of(LITE0), shape)
