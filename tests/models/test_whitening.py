import numpy as np
import pytest

from pipeline.errors import ParamsError, TrainingError
from pipeline.models import build as models
from pipeline.models.recipes import Recipe
from pipeline.training.engine import Data, fit

FIRST = {"conv": 6, "kernel_size": 2, "padding": "valid", "activation": "linear", "whiten": True}
DRAW = np.random.default_rng(0)


def smooth(count=400, channels=1):
    """Images whose neighbouring pixels are alike."""
    coarse = DRAW.integers(0, 256, (count, 3, 3, channels)).astype(float)
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2)
    for axis in (1, 2):
        fine = (np.roll(fine, 1, axis) + 2 * fine + np.roll(fine, -1, axis)) / 4
    return fine.astype(np.uint8)


def trained(first, x):
    recipe = Recipe.model_validate({"layers": [first, "flatten"], "epochs": 1})
    model = models.build(recipe, x.shape[1:], 2, 0)
    y = np.arange(len(x)) % 2
    fit(model, recipe, Data(x, y, x[:30], y[:30], ("a", "b")), seed=0)
    return model


def test_outputs_are_not_correlated_and_vary_equally():
    x = smooth()
    layer = trained(FIRST, x).layers[2]
    outputs = np.asarray(layer(x / np.float32(255))).reshape(-1, 6)
    covariance = np.cov(outputs[:, :3], rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(3), atol=0.25)
    np.testing.assert_allclose(np.tril(covariance, -1), 0, atol=0.02)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(outputs[:, :3], -outputs[:, 3:], atol=1e-4)


def test_it_is_not_trained():
    x = smooth()
    model = trained(FIRST, x)
    assert not model.layers[2].trainable_variables
    again = trained(FIRST, x).layers[2]
    np.testing.assert_array_equal(model.layers[2].kernel, again.kernel)


@pytest.mark.parametrize("filters", [7, 10])
def test_more_filters_than_there_are_kernels_are_refused(filters):
    with pytest.raises(TrainingError, match=f"2 by 2 on 1 channels .* up to 8; received {filters}"):
        trained({**FIRST, "conv": filters}, smooth(40))


def test_only_the_first_layer_sees_images():
    with pytest.raises((ValueError, ParamsError), match="whiten belongs to the first layer"):
        Recipe.model_validate({"layers": [{"conv": 4}, FIRST], "epochs": 1})
