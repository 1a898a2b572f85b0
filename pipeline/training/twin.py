"""The twin of a model, which is trained in its place: the same weights, computed faster.

The twin is never saved: its weights are copied back to the plain Keras model, in `float32`, which
any machine loads and whose answers do not depend on how it was trained.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import keras
import numpy as np

from pipeline.artifacts.datasets import Images, Labels, Vectors
from pipeline.models.recipes import OUTPUT_LAYER, Recipe
from pipeline.training.backends.steps import steps
from pipeline.training.device import computes_bfloat16

Precision = Literal["float32", "bfloat16"]
# The smallest cosine that is accepted between the gradients of an array in both precisions.
# Rounding alone leaves 0.99.
LEAST_COSINE = 0.9
# Enough that rounding hardly shows, few enough to be fast on kernels that nobody has searched for.
IMAGES_TO_COMPARE = 128


def twin(model: keras.Model, precision: Precision) -> keras.Model:
    """Return a model with the same weights that computes in that precision.

    Args:
        model: the result of `models.build.build`.
        precision: the type for the layers in between. Weights, scaling and softmax stay `float32`.
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    fast = _fast()
    pools = _pools_after_relu(model) if keras.activations.relu in fast else {}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        exact = isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization))
        if not exact and layer.name != OUTPUT_LAYER:
            config["dtype"] = policy
        made = fast.get(type(layer), type(layer)).from_config(config)
        constraint: Any = getattr(layer, "kernel_constraint", None)
        if type(constraint) in fast:
            made.kernel_constraint = fast[type(constraint)].from_config(constraint.get_config())
        if layer.name in pools:
            made.activation = fast[keras.activations.relu]
        if layer.name in pools.values():
            made.follows_relu = True
        return made

    made = keras.models.clone_model(model, clone_function=copy)
    made.set_weights(model.get_weights())
    return made


def _pools_after_relu(model: keras.Model) -> dict[str, str]:
    """Return the names of convolutions with relu, each with the pooling that follows it."""
    return {
        layer.name: following.name
        for layer, following in pairwise(model.layers)
        if isinstance(layer, keras.layers.Conv2D)
        and layer.activation is keras.activations.relu
        and isinstance(following, keras.layers.MaxPooling2D)
    }


@dataclass(frozen=True)
class Agreement:
    """How far the gradients of two models agree on the array where they differ most.

    Attributes:
        cosine: the cosine between both gradients; 1 if they point the same way.
        variable: the path of the array.
    """

    cosine: float
    variable: str

    @property
    def suffices(self) -> bool:
        """Whether both models learn the same."""
        return self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        return f"{self.cosine:.3f} ({self.variable})"


def agreement(
    model: keras.Model, other: keras.Model, recipe: Recipe, x: Images | Vectors, y: Labels
) -> Agreement:
    """Compare the gradients of two models: some hardware computes some layers wrongly.

    Both models get the same random weights for this, so that the result depends on the recipe, the
    images and the hardware, but not on the seed.

    Args:
        model: the model in `float32`.
        other: its twin.
        recipe: the recipe of both.
        x: the training images, of which a batch is used.
        y: their labels.
    """
    some = slice(0, min(recipe.batch_size, IMAGES_TO_COMPARE))
    models = (model, other)
    before = [one.get_weights() for one in models]
    for one in models:
        _draw_weights(one)
    found = steps().gradients(models, recipe, x[some], y[some])
    for one, weights in zip(models, before, strict=True):
        one.set_weights(weights)
    paths = ["/".join(v.path.split("/")[-2:]) for v in model.trainable_variables]
    cosines = [_cosine(a, b) for a, b in zip(*found, strict=True)]
    return min(map(Agreement, cosines, paths), key=lambda seen: seen.cosine)


def safe_twin(
    model: keras.Model, recipe: Recipe, x: Images | Vectors, y: Labels
) -> tuple[keras.Model, Precision, Agreement | None]:
    """Return the twin to train, in the recipe's precision if this hardware computes that right.

    Args:
        model: the result of `models.build.build`.
        recipe: the recipe of the model.
        x: the training images, of which a batch is used to compare gradients.
        y: their labels.

    Returns:
        The twin, its precision, and how far the gradients agree, if they were compared.
    """
    if recipe.precision != "bfloat16" or not computes_bfloat16():
        return twin(model, "float32"), "float32", None
    made = twin(model, "bfloat16")
    measured = agreement(model, made, recipe, x, y)
    if measured.suffices:
        return made, "bfloat16", measured
    warnings.warn(
        f"the gradients in bfloat16 differ from those in float32 on this hardware, the smallest "
        f"cosine is {measured}: training in float32, which takes longer",
        stacklevel=3,
    )
    return twin(model, "float32"), "float32", measured


def _draw_weights(model: keras.Model) -> None:
    """Draw all kernels with Keras' default initializer, always from the same seed.

    All weights are rounded to `bfloat16`, so that only the computations differ.
    """
    for number, variable in enumerate(model.trainable_variables):
        if len(variable.shape) > 1:
            variable.assign(keras.initializers.GlorotUniform(seed=number)(variable.shape))
    for variable in model.weights:
        variable.assign(keras.ops.cast(keras.ops.cast(variable, "bfloat16"), "float32"))


def _cosine(a: Any, b: Any) -> float:
    a, b = (np.asarray(array, np.float64).ravel() for array in (a, b))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    # An array that has no gradient in either model agrees.
    return float(a @ b) / lengths if lengths else float(not a.any() and not b.any())


def _fast() -> dict[Any, Any]:
    """Return faster replacements of layers, constraints and functions on the backend."""
    if keras.backend.backend() == "jax":
        from pipeline.training.backends import fused_jax

        return {
            keras.layers.BatchNormalization: fused_jax.BatchNormalization,
            keras.layers.MaxPooling2D: fused_jax.MaxPooling2D,
        }
    from pipeline.training.backends import fused_tensorflow as fused

    return {
        keras.layers.BatchNormalization: fused.BatchNormalization,
        keras.layers.Conv2D: fused.Conv2D,
        keras.layers.Dropout: fused.Dropout,
        keras.layers.MaxPooling2D: fused.MaxPooling2D,
        keras.constraints.MaxNorm: fused.MaxNorm,
        keras.activations.relu: fused.relu_before_pooling,
    }
