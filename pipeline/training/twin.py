"""The twin of a model that is trained in its place: the same weights, computed faster.

What is trained is never what is kept: after the training its weights return to the plain Keras
model, in `float32`, which any machine loads and whose answers do not depend on how it was trained.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import keras
import numpy as np

from pipeline.artifacts.datasets import Images, Labels
from pipeline.models.recipes import OUTPUT_LAYER, Recipe
from pipeline.training.backends.steps import steps
from pipeline.training.device import computes_bfloat16

Precision = Literal["float32", "bfloat16"]
# The least cosine of the gradients of one array, in both precisions. Rounding alone leaves 0.99.
LEAST_COSINE = 0.9


def twin(model: keras.Model, precision: Precision) -> keras.Model:
    """Return a model with the same weights that computes in that precision.

    Args:
        model: from `models.build.build`.
        precision: of the layers in between. Weights, scaling and softmax stay `float32`.
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    fast = _fast()
    pools = _pools_after_relu(model) if keras.activations.relu in fast else {}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in ("scaled", OUTPUT_LAYER):
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
    """Return by convolution with relu the pooling that follows it."""
    return {
        layer.name: following.name
        for layer, following in pairwise(model.layers)
        if isinstance(layer, keras.layers.Conv2D)
        and layer.activation is keras.activations.relu
        and isinstance(following, keras.layers.MaxPooling2D)
    }


@dataclass(frozen=True)
class Agreement:
    """How alike two models see the gradient of the array on which they agree least.

    Attributes:
        cosine: of both gradients; 1 where they are alike.
        variable: the path of the array.
    """

    cosine: float
    variable: str

    @property
    def suffices(self) -> bool:
        """Whether both learn the same."""
        return self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        return f"{self.cosine:.3f} ({self.variable})"


def agreement(
    model: keras.Model, other: keras.Model, recipe: Recipe, x: Images, y: Labels
) -> Agreement:
    """Compare the gradients of both: some hardware computes some layers wrongly.

    Both are asked with the same drawn weights, whatever theirs are, so that the answer is of the
    recipe, the images and the hardware, and the same for every seed.

    Args:
        model: the one in `float32`.
        other: its twin.
        recipe: of both.
        x: the training images, of which some are looked at.
        y: their labels.
    """
    some = slice(0, recipe.batch_size)  # which takes no more memory than a step
    found = []
    for one in (model, other):
        before = one.get_weights()
        _draw_weights(one)
        found.append(steps().gradients(one, recipe, x[some], y[some]))
        one.set_weights(before)
    paths = ["/".join(v.path.split("/")[-2:]) for v in model.trainable_variables]
    cosines = [_cosine(a, b) for a, b in zip(*found, strict=True)]
    return min(map(Agreement, cosines, paths), key=lambda seen: seen.cosine)


def safe_twin(
    model: keras.Model, recipe: Recipe, x: Images, y: Labels
) -> tuple[keras.Model, Precision, Agreement | None]:
    """Return the twin to train, in the recipe's precision if this hardware computes that right.

    Args:
        model: from `models.build.build`.
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
    """Draw all kernels as Keras begins them, from a seed that is always the same.

    All weights are numbers that `bfloat16` has: what is compared is how both compute.
    """
    for number, variable in enumerate(model.trainable_variables):
        if len(variable.shape) > 1:
            variable.assign(keras.initializers.GlorotUniform(seed=number)(variable.shape))
    for variable in model.weights:
        variable.assign(keras.ops.cast(keras.ops.cast(variable, "bfloat16"), "float32"))


def _cosine(a: Any, b: Any) -> float:
    a, b = (np.asarray(array, np.float64).ravel() for array in (a, b))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    # An array without any gradient, in both, is one that both leave alone.
    return float(a @ b) / lengths if lengths else float(not a.any() and not b.any())


def _fast() -> dict[Any, Any]:
    """Return what stands for which layer, constraint or function: what is faster on the backend."""
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
