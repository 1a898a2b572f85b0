"""Builds the Keras model of a recipe; `layers` defines what each layer becomes."""

from typing import Any

import keras

from pipeline.errors import TrainingError
from pipeline.models.backbones.build import extract
from pipeline.models.layer import Layer
from pipeline.models.layers import layer_kind
from pipeline.models.recipes import OUTPUT_LAYER, VIEWS_LAYER, Recipe

# Multiplications of the forward pass of a step. Measured on two cores: 50 million take a quarter
# less time with one thread than with two, 180 million take the same.
_SMALL_STEP = 100_000_000


def build(
    recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> keras.Model:
    """Build the untrained model of a recipe.

    Args:
        recipe: defines the layers; a softmax layer with one unit per class is added.
        image_shape: height, width, channels.
        num_classes: 2 or more.
        seed: seeds the weights and the dropout, and also Python, NumPy and the backend.

    Returns:
        A functional model: `uint8` images (n, height, width, channels) in, `float32`
        probabilities (n, num_classes) out. Scaling to [0, 1] is its first layer; a backbone has
        a scaling of its own, and its weights.

    Raises:
        TrainingError: the layers do not fit the images or each other.
        DownloadError: the weights of a backbone are not to be had.
        ArtifactError: they are damaged.
    """
    if num_classes < 2:
        raise TrainingError(f"a classifier needs at least 2 classes; received {num_classes}")
    keras.utils.set_random_seed(seed)
    images = keras.Input(image_shape, dtype="uint8", name="images")
    if recipe.backbone:
        x = extract(recipe.backbone, images)
    else:
        x = keras.layers.Rescaling(1 / 255, name="scaled")(images)
    for position, layer in enumerate(recipe.layers, start=1):
        if layer is not recipe.backbone:
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
    mean = keras.layers.Average(name=VIEWS_LAYER, dtype="float32")([core(view) for view in seen])
    return keras.Model(images, mean, name="classifier_of_views")


def steps_are_small(recipe: Recipe, image_shape: tuple[int, int, int]) -> bool:
    """Whether the convolutions of a step are so small that a second thread slows them down."""
    per_step = multiplications(recipe, image_shape) * recipe.batch_size
    return recipe.convolves and per_step < _SMALL_STEP


def multiplications(recipe: Recipe, image_shape: tuple[int, int, int]) -> int:
    """Count the multiplications for one image in the hidden layers of a recipe, forward.

    Args:
        recipe: a recipe whose layers fit each other.
        image_shape: height, width, channels.
    """
    shape, total = image_shape, 0
    for part in recipe.parts:
        total += part.multiplications(shape)
        shape = part.output_shape(shape)
    return total


def _views(images: Any, *, shifted: bool) -> list[Any]:
    """Return the images, if `shifted` also moved to two corners, and all of these mirrored."""
    seen = [images]
    if shifted:
        height, width = images.shape[1:3]
        padded = keras.ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        seen += [padded[:, at : at + height, at : at + width] for at in (0, 2)]
    return [*seen, *(keras.ops.flip(view, axis=2) for view in seen)]


def _apply(layer: Layer, x: Any, position: int) -> Any:
    """Add one layer of a recipe; the error says which layer does not fit, and on what shape."""
    for part in layer.parts():
        kind = layer_kind(part)
        make = getattr(keras.layers, part.keras_class)
        shape: Any = (*_shape(x), 1, 1)[:3]
        try:
            y = make(**part.settings_at(shape), name=f"{kind}_{position}")(x)
            problem = "" if all(size > 0 for size in _shape(y)) else f"leaves shape {_shape(y)}"
        except (ValueError, TypeError) as error:
            problem = str(error).strip().split("\n")[0] or type(error).__name__
        if problem:
            name = kind if part is layer else f"{layer_kind(layer)} ({kind})"
            raise TrainingError(
                f"layer {position}, {name}, does not fit shape {_shape(x)}: {problem}"
            )
        x = y
    return x


def _shape(x: Any) -> tuple[int, ...]:
    """Return the shape of one image at this point, without the batch."""
    return tuple(x.shape[1:])
