"""The layers of a recipe: the keys of each, the Keras layers it becomes, and its multiplications.

A new layer is a class with all of this, and an entry of `LAYERS`. Keras' classes are named, not
imported, so that reading params.yaml stays fast.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.models.backbones.layer import Backbone
from pipeline.models.layer import (
    Activation,
    FractionBelowOne,
    Layer,
    Momentum,
    Padding,
    Shape,
    Side,
    SingleLayer,
    max_norm,
    windows,
)


class Conv(SingleLayer):
    """`{conv: filters, …}`: a square two-dimensional convolution.

    Attributes:
        whiten: only for the first layer: the kernels are not trained but computed from the
            training images. They are pairs of opposites whose outputs are uncorrelated and have
            equal variance.
    """

    keras_class = "Conv2D"
    conv: PositiveInt
    kernel_size: PositiveInt = 3
    strides: PositiveInt = 1
    padding: Padding = "same"
    activation: Activation = "relu"
    use_bias: bool = True
    max_norm: PositiveFloat | None = None
    whiten: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `Conv2D`."""
        return {
            "filters": self.conv,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_constraint": max_norm(self.max_norm),
            "trainable": not self.whiten,
        }

    def multiplications(self, shape: Shape) -> int:
        """Return the multiplications of each kernel with each window."""
        height, width, filters = self.output_shape(shape)
        return height * width * filters * shape[2] * self.kernel_size**2

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of windows, with a channel per filter."""
        height, width = windows(shape, self.kernel_size, self.strides, self.padding)
        return height, width, self.conv


class Dense(SingleLayer):
    """`{dense: units, …}`: a fully connected layer."""

    keras_class = "Dense"
    dense: PositiveInt
    activation: Activation = "relu"
    use_bias: bool = True
    max_norm: PositiveFloat | None = None

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `Dense`."""
        return {
            "units": self.dense,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_constraint": max_norm(self.max_norm),
        }

    def multiplications(self, shape: Shape) -> int:
        """Return the multiplications of each unit with each input."""
        height, width, channels = shape
        return height * width * channels * self.dense

    def output_shape(self, shape: Shape) -> Shape:
        """Return a channel per unit."""
        return *shape[:2], self.dense


class MaxPool(SingleLayer):
    """`{max_pool: size}`: the largest value of each square; squares do not overlap."""

    keras_class = "MaxPooling2D"
    max_pool: Side
    padding: Padding = "valid"

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `MaxPooling2D`."""
        return {"pool_size": self.max_pool, "padding": self.padding}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of squares, with the same channels."""
        return *windows(shape, self.max_pool, self.max_pool, self.padding), shape[2]


class Shrink(SingleLayer):
    """`{shrink: side}`: makes large images smaller, so that the next layers take less time.

    The mean of each square, as large as leaves `side` pixels of the shorter side; images that are
    smaller than twice that stay as they are.
    """

    keras_class = "AveragePooling2D"
    shrink: Annotated[int, Field(ge=16)]

    def settings_at(self, shape: Shape) -> dict[str, Any]:
        """Return the arguments of `AveragePooling2D`."""
        return {"pool_size": max(1, min(shape[:2]) // self.shrink)}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of squares, with the same channels."""
        size = self.settings_at(shape)["pool_size"]
        return shape[0] // size, shape[1] // size, shape[2]


class GlobalAveragePool(SingleLayer):
    """`global_average_pool`: the mean of each channel."""

    keras_class = "GlobalAveragePooling2D"
    global_average_pool: Literal[True] = True

    def output_shape(self, shape: Shape) -> Shape:
        """Return a vector of the channels."""
        return 1, 1, shape[2]


class Flatten(SingleLayer):
    """`flatten`."""

    keras_class = "Flatten"
    flatten: Literal[True] = True

    def output_shape(self, shape: Shape) -> Shape:
        """Return a vector of all values."""
        height, width, channels = shape
        return 1, 1, height * width * channels


class Dropout(SingleLayer):
    """`{dropout: rate}`."""

    keras_class = "Dropout"
    dropout: FractionBelowOne

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `Dropout`."""
        return {"rate": self.dropout}


class BatchNorm(SingleLayer):
    """`batch_norm`, or `{batch_norm: true, momentum: 0.9}`; with `scale` it learns a factor."""

    keras_class = "BatchNormalization"
    batch_norm: Literal[True] = True
    momentum: Momentum = 0.99
    scale: bool = True

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `BatchNormalization`."""
        return {"momentum": self.momentum, "scale": self.scale}


class Activate(SingleLayer):
    """`{activation: gelu}`: an activation as a separate layer, for example after a batch_norm."""

    keras_class = "Activation"
    activation: Activation

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `Activation`."""
        return {"activation": self.activation}


class ConvBlock(Layer):
    """`{conv_block: filters, …}`: convolution without bias, max_pool, batch_norm, activation.

    Attributes:
        max_pool: side of the squares that are pooled before batch_norm, which then has less to
            compute; None pools nothing.
        momentum: the momentum of batch_norm.
        scale: whether batch_norm learns a factor.
    """

    conv_block: PositiveInt
    kernel_size: PositiveInt = 3
    strides: PositiveInt = 1
    padding: Padding = "same"
    max_pool: Side | None = None
    momentum: Momentum = 0.99
    scale: bool = True
    activation: Activation = "relu"

    def parts(self) -> tuple[SingleLayer, ...]:
        """Return the layers of the block."""
        convolution = Conv(
            conv=self.conv_block,
            kernel_size=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            activation="linear",
            use_bias=False,
        )
        pooling = (MaxPool(max_pool=self.max_pool),) if self.max_pool else ()
        norm = BatchNorm(momentum=self.momentum, scale=self.scale)
        return convolution, *pooling, norm, Activate(activation=self.activation)


# The order decides which key names the layer: in `{conv_block: 16, max_pool: 2}` and
# `{dense: 16, activation: relu}` the second one is a property of the first.
LAYERS: tuple[type[Layer], ...] = (
    *(Conv, Dense, ConvBlock, MaxPool, Shrink, GlobalAveragePool),
    *(Flatten, Dropout, BatchNorm, Activate, Backbone),
)
BY_KIND = {next(iter(layer.model_fields)): layer for layer in LAYERS}


def layer_kind(layer: Any) -> str | None:
    """Return the key that names the layer, or None where there is none."""
    if isinstance(layer, Layer):
        return next(iter(type(layer).model_fields))
    keys = layer if isinstance(layer, dict) else [layer]
    return next((kind for kind in BY_KIND if kind in keys), None)
