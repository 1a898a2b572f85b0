"""Phases that train more or less of a backbone: what moves, what stays, on both backends."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import TrainingError
from pipeline.models import build as models
from pipeline.models.backbones import build as backbones
from pipeline.models.backbones.layer import FEATURES
from pipeline.models.recipes import Recipe
from pipeline.training.engine import Data, fit
from pipeline.training.optimizers import rates_of
from pipeline.training.state import TrainingState

HEAD = ["probabilities/bias", "probabilities/kernel"]
OF_MOBILENET = ["conv_dw_13/kernel", "conv_pw_13/kernel"]
LONG = (pytest.mark.long, pytest.mark.timeout(900))
LABELS = np.repeat([0, 1], 20)
PIXELS = (
    np.random.default_rng(0).integers(0, 120, (40, 32, 32, 3), np.uint8)
    + 100 * (LABELS.astype(np.uint8)[:, None, None, None])
)
DATA = Data(PIXELS, LABELS, PIXELS[15:25], LABELS[15:25], ("dark", "bright"))


def recipe(*phases, trainable="none", **more):
    return Recipe.model_validate(
        {
            "layers": [{"backbone": "mobilenet_v1", "trainable": trainable}],
            # It shrinks all that an optimizer updates, also where the gradient is 0.
            "optimizer": {"name": "adamw", "weight_decay": 0.1},
            "epochs": 1,
            "batch_size": 16,
            "then": phases,
            **more,
        }
    )


def network(_):
    """Return a model as `build` makes it, with a backbone that is quickly compiled."""
    pixels = keras.Input((32, 32, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, name="scaled")(pixels)
    for number in range(3):
        x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False, name=f"conv_{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{number}")(x)
        x = keras.layers.ReLU(name=f"relu_{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name=FEATURES)(x)
    x = keras.layers.Dense(2, activation="softmax", name="probabilities")(x)
    model = keras.Model(pixels, x, name="classifier")
    backbones.set_trainable(model, "none")
    return model


def mobilenet(fine):
    return models.build(fine, (32, 32, 3), 2, 0)


def moved_by_epoch(model_of=mobilenet):
    """Fit a backbone with random weights; return what each epoch of it changed."""
    fine = recipe(
        {"epochs": 1, "trainable": "last_6", "learning_rate": 1e-4},
        {"epochs": 1},
        {"epochs": 1, "trainable": "none"},
    )
    keep = TrainingState.add
    seen = []

    def add(state, *of_epoch):
        keep(state, *of_epoch)
        seen.append(state.twin.get_weights())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "_load", lambda *_: None)
        patch.setattr(TrainingState, "add", add)
        model = model_of(fine)
        seen.append(model.get_weights())
        fit(model, fine, DATA, seed=0)
    paths = [weight.path for weight in model.weights]
    return [
        sorted(p for p, a, b in zip(paths, *two, strict=True) if not np.array_equal(a, b))
        for two in pairwise(seen)
    ]


def moved_on_jax():
    code = "import json; from tests.training.test_fine_tuning import *; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code} print(json.dumps(moved_by_epoch()))"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("moved", "last"),
    [
        (lambda: moved_by_epoch(network), ["conv_1/kernel", "conv_2/kernel"]),
        pytest.param(moved_by_epoch, OF_MOBILENET, marks=LONG),
        pytest.param(moved_on_jax, OF_MOBILENET, marks=LONG),
    ],
    ids=["small", "mobilenet", "mobilenet on jax"],
)
def test_a_phase_moves_what_it_trains_and_nothing_else(moved, last):
    # No moving average of a batch norm, no gamma and no beta is among them.
    assert moved() == [HEAD, last + HEAD, last + HEAD, HEAD]


def test_a_phase_with_a_rate_of_its_own_begins_the_schedule_anew():
    fine = recipe({"epochs": 1}, {"epochs": 2, "learning_rate": 0.01}, schedule="cosine")
    rates = rates_of(fine, 40)  # ten steps in each epoch
    first, second = (float(rates(step)) for step in (0, 20))
    assert (first, second) == pytest.approx((0.001, 0.01), rel=0.05)
    assert float(rates(19)) < 1e-5
    assert float(rates(30)) == pytest.approx(0.005, rel=0.1)
    assert float(rates(39)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainable": "last"}, "trainable"),
        ({"trainable": "last_0"}, "trainable"),
        ({"layers": ["flatten", {"backbone": "mobilenet_v1"}]}, "a backbone is the first layer"),
        ({"layers": [{"backbone": "mobilenet_v2", "alpha": 0.7}]}, "allowed: 1.0, 0.5, 0.35"),
        ({"layers": [{"backbone": "resnet50_v2", "alpha": 1}]}, "leave alpha out"),
        ({"layers": ["flatten"], "then": [{"epochs": 1, "trainable": "all"}]}, "no backbone"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        recipe(**changes)


def test_more_layers_than_there_are_cannot_be_trained(monkeypatch):
    monkeypatch.setattr(backbones, "_load", lambda *_: None)
    many = recipe({"epochs": 1, "trainable": "last_500"})
    model = models.build(many, (32, 32, 3), 2, 0)
    with pytest.raises(TrainingError, match="has 85 layers; allowed: none, last_1 to last_85"):
        fit(model, many, DATA, seed=0)


def test_all_trains_every_kernel_and_no_batch_norm(monkeypatch):
    monkeypatch.setattr(backbones, "_load", lambda *_: None)
    model = models.build(recipe(trainable="all"), (32, 32, 3), 2, 0)
    trained = {weight.path.split("/")[-1] for weight in model.trainable_weights}
    assert trained == {"kernel", "bias"}
    kernels = [w for layer in model.layers for w in layer.weights if len(w.shape) > 1]
    assert len(model.trainable_weights) == len(kernels) + 1  # the bias of the head
    assert not any(
        layer.trainable
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
