"""EfficientNet-Lite0 (Liu, 2020): the architecture, and its weights from a file of PyTorch.

It is EfficientNet-B0 without squeeze-and-excitation, with ReLU6: made for phones and for integers.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipeline.errors import ArtifactError
from pipeline.models.backbones.torch_file import Tensors

EPSILON = 1e-3
STEM, HEAD = 32, 1280  # filters


class Stage(NamedTuple):
    """Blocks in a row with equal filters; the first one has the stride."""

    blocks: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def EfficientNetLite0(
    *, include_top: bool, weights: None, input_tensor: Any, input_shape: tuple[int, int, int]
) -> keras.Model:
    """Build the architecture as `keras.applications` build theirs, here without a classifier.

    Args:
        include_top: False.
        weights: None; see `arrays`.
        input_tensor: images scaled to -1 to 1.
        input_shape: of one of them.

    Returns:
        A model whose output is the last feature map, (n, height / 32, width / 32, 1280).
    """
    x = _relu6(_convolve(input_tensor, STEM, 3, "stem", strides=2), "stem")
    number = 0
    for stage in STAGES:
        for repeat in range(stage.blocks):
            x = _block(x, stage, 1 if repeat else stage.strides, f"block{number}")
            number += 1
    x = _relu6(_convolve(x, HEAD, 1, "head"), "head")
    images = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(images, x, name="efficientnet_lite0")


def _block(x: Any, stage: Stage, strides: int, name: str) -> Any:
    """Widen, filter each channel, narrow; where the shape stays, add what came in."""
    inputs, wide = x, x.shape[-1] * stage.expansion
    if stage.expansion > 1:
        x = _relu6(_convolve(x, wide, 1, f"{name}_expand"), f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel_size, strides, "same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = _relu6(_normalise(x, f"{name}_depthwise"), f"{name}_depthwise")
    x = _convolve(x, stage.filters, 1, f"{name}_project")
    return layers.Add(name=f"{name}_add")([x, inputs]) if x.shape == inputs.shape else x


def _convolve(x: Any, filters: int, size: int, name: str, strides: int = 1) -> Any:
    x = layers.Conv2D(filters, size, strides, "same", use_bias=False, name=name)(x)
    return _normalise(x, name)


def _normalise(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


def _relu6(x: Any, name: str) -> Any:
    return layers.ReLU(6, name=f"{name}_relu")(x)


def arrays(tensors: Tensors) -> list[NDArray[np.float32]]:
    """Return the weights in the order of the model's `get_weights`.

    Args:
        tensors: of the file, by the names that its author gave them.

    Raises:
        ArtifactError: the file lacks some.
    """
    try:
        return [array for name in _names() for array in _of_layer(tensors, *name)]
    except KeyError as error:
        raise ArtifactError(f"the weights of efficientnet_lite0 lack {error}") from error


def _names() -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution in the file and of the normalisation after it."""
    yield "_conv_stem", "_bn0"
    expansions = [stage.expansion for stage in STAGES for _ in range(stage.blocks)]
    for number, expansion in enumerate(expansions):
        block = f"_blocks.{number}."
        if expansion > 1:
            yield f"{block}_expand_conv", f"{block}_bn0"
        yield f"{block}_depthwise_conv", f"{block}_bn1"
        yield f"{block}_project_conv", f"{block}_bn2"
    yield "_conv_head", "_bn1"


def _of_layer(tensors: Tensors, convolution: str, norm: str) -> Iterator[NDArray[np.float32]]:
    """Yield the kernel with its axes in Keras' order, and the four arrays of the normalisation."""
    axes = (2, 3, 0, 1) if "depthwise" in convolution else (2, 3, 1, 0)
    yield tensors[f"{convolution}.weight"].transpose(axes)
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield tensors[f"{norm}.{name}"]
