"""Recipes become Keras models: one builder per kind of layer, in `BUILDERS`."""

from collections.abc import Callable
from typing import Any

import keras

from pipeline.artifacts.record import Frozen
from pipeline.errors import TrainingError
from pipeline.models.recipes import (
    OUTPUT_LAYER,
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Recipe,
    layer_kind,
)

# Products of a step forward. Measured on two cores: 50 million take a quarter less time in one
# thread than in two, 180 million the same.
_SMALL_STEP = 100_000_000


def build(
    recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> keras.Model:
    """Build the untrained model of a recipe.

    Args:
        recipe: its layers; a softmax layer with one unit per class is added.
        image_shape: height, width, channels.
        num_classes: 2 or more.
        seed: of the weights and the dropout; also seeds Python, NumPy and the backend.

    Returns:
        A functional model: `uint8` images (n, height, width, channels) in, `float32`
        probabilities (n, num_classes) out. Scaling to [0, 1] is its first layer.

    Raises:
        TrainingError: the layers do not fit the images or each other.
    """
    if num_classes < 2:
        raise TrainingError(f"a classifier needs at least 2 classes; received {num_classes}")
    keras.utils.set_random_seed(seed)
    images = keras.Input(image_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, name="scaled")(images)
    for position, layer in enumerate(recipe.layers, start=1):
        x = _apply(layer, x, position)
    if len(x.shape) != 2:
        raise TrainingError(
            f"the layers end with shape {_shape(x)}, the softmax layer needs a vector: "
            "add flatten or global_average_pool before the dense layers"
        )
    softmax = keras.layers.Dense(
        num_classes, activation="softmax", dtype="float32", name=OUTPUT_LAYER
    )
    core = keras.Model(images, softmax(x), name="classifier")
    if recipe.test_time_augmentation == "none":
        return core
    seen = _views(images, shifted=recipe.test_time_augmentation == "flip_and_shift")
    mean = keras.layers.Average(name="mean", dtype="float32")([core(view) for view in seen])
    return keras.Model(images, mean, name="classifier_of_views")


def core(model: keras.Model) -> keras.Model:
    """Return the part of a model that sees an image once: that which is trained."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return nested[0] if nested else model


def steps_are_small(recipe: Recipe, image_shape: tuple[int, int, int]) -> bool:
    """Whether a training step convolves so little that a second thread costs more than it does."""
    convolves = any(isinstance(layer, Conv) for layer in recipe.layers)
    return convolves and multiplications(recipe, image_shape) * recipe.batch_size < _SMALL_STEP


def multiplications(recipe: Recipe, image_shape: tuple[int, int, int]) -> int:
    """Count the products that one image takes in the hidden layers of a recipe, forward.

    Args:
        recipe: its layers fit each other.
        image_shape: height, width, channels.
    """
    height, width, channels = image_shape
    total = 0
    for layer in recipe.layers:
        if isinstance(layer, Conv):
            size, strides, padding = layer.kernel_size, layer.strides, layer.padding
            height, width = (_left(side, size, strides, padding) for side in (height, width))
            total += height * width * channels * layer.conv * size**2
            channels = layer.conv
        elif isinstance(layer, MaxPool):
            size = layer.max_pool
            height, width = (_left(side, size, size, layer.padding) for side in (height, width))
        elif isinstance(layer, Flatten):
            height, width, channels = 1, 1, height * width * channels
        elif isinstance(layer, GlobalAveragePool):
            height, width = 1, 1
        elif isinstance(layer, Dense):
            total += height * width * channels * layer.dense
            channels = layer.dense
    return total


def _left(side: int, size: int, strides: int, padding: str) -> int:
    """Return how many windows fit on a side."""
    return -(-side // strides) if padding == "same" else (side - size) // strides + 1


def _views(images: Any, *, shifted: bool) -> list[Any]:
    """Return the images, moved to two corners where that is asked for, and all mirrored."""
    seen = [images]
    if shifted:
        height, width = images.shape[1:3]
        padded = keras.ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        seen += [padded[:, at : at + height, at : at + width] for at in (0, 2)]
    return [*seen, *(keras.ops.flip(view, axis=2) for view in seen)]


def _apply(layer: Frozen, x: Any, position: int) -> Any:
    """Put one layer on top, or say which one does not fit, and on what."""
    kind = str(layer_kind(layer))
    try:
        y = BUILDERS[kind](layer, f"{kind}_{position}")(x)
        problem = "" if all(size > 0 for size in _shape(y)) else f"leaves shape {_shape(y)}"
    except (ValueError, TypeError) as error:
        problem = str(error).strip().split("\n")[0] or type(error).__name__
    if problem:
        raise TrainingError(f"layer {position}, {kind}, does not fit shape {_shape(x)}: {problem}")
    return y


def _shape(x: Any) -> tuple[int, ...]:
    """Return the shape of one image at this point, without the batch."""
    return tuple(x.shape[1:])


def _conv(layer: Conv, name: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        layer.conv,
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_constraint=_max_norm(layer.max_norm),
        trainable=not layer.whiten,
        name=name,
    )


def _dense(layer: Dense, name: str) -> keras.layers.Layer:
    return keras.layers.Dense(
        layer.dense,
        activation=layer.activation,
        use_bias=layer.use_bias,
        kernel_constraint=_max_norm(layer.max_norm),
        name=name,
    )


def _max_norm(limit: float | None) -> keras.constraints.Constraint | None:
    # Keras' default axis 0 bounds each unit of a dense layer; on a convolution it bounds each
    # column of the kernel, as the tutorials that ask for it do.
    return keras.constraints.MaxNorm(limit) if limit else None


def _max_pool(layer: MaxPool, name: str) -> keras.layers.Layer:
    return keras.layers.MaxPooling2D(layer.max_pool, padding=layer.padding, name=name)


def _global_average_pool(layer: Frozen, name: str) -> keras.layers.Layer:
    return keras.layers.GlobalAveragePooling2D(name=name)


def _flatten(layer: Frozen, name: str) -> keras.layers.Layer:
    return keras.layers.Flatten(name=name)


def _dropout(layer: Dropout, name: str) -> keras.layers.Layer:
    return keras.layers.Dropout(layer.dropout, name=name)


def _batch_norm(layer: BatchNorm, name: str) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=layer.momentum, scale=layer.scale, name=name)


def _activation(layer: Activate, name: str) -> keras.layers.Layer:
    return keras.layers.Activation(layer.activation, name=name)


BUILDERS: dict[str, Callable[..., keras.layers.Layer]] = {
    "conv": _conv,
    "dense": _dense,
    "max_pool": _max_pool,
    "global_average_pool": _global_average_pool,
    "flatten": _flatten,
    "dropout": _dropout,
    "batch_norm": _batch_norm,
    "activation": _activation,
}
