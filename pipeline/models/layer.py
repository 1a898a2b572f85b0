"""The interface of a layer of a recipe: its parts, each of which becomes one Keras layer."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.artifacts.record import Frozen

Activation = Literal["linear", "relu", "gelu", "silu", "elu", "tanh", "sigmoid"]
Padding = Literal["same", "valid"]
Side = Annotated[int, Field(ge=2)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[float, Field(gt=0, lt=1)]
Shape = tuple[int, int, int]  # height, width, channels; a vector is (1, 1, units)


class Layer(Frozen):
    """A layer of a recipe, named by its first field."""

    def parts(self) -> "tuple[SingleLayer, ...]":
        """Return the parts that become one Keras layer each, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no parts")


class SingleLayer(Layer):
    """A layer that becomes one Keras layer; by default without weights, and keeps the shape.

    Attributes:
        keras_class: the name of its class in `keras.layers`.
    """

    keras_class: ClassVar[str]

    def parts(self) -> "tuple[SingleLayer, ...]":
        """Return the layer itself."""
        return (self,)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the Keras class, without the name."""
        return {}

    def settings_at(self, shape: Shape) -> dict[str, Any]:
        """Return the same for images of a shape, where it decides."""
        return self.settings()

    def multiplications(self, shape: Shape) -> int:
        """Return the multiplications with the kernel for one image, forward."""
        return 0

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of one image after the layer."""
        return shape


def windows(shape: Shape, size: int, strides: int, padding: Padding) -> tuple[int, int]:
    """Return how many windows fit in the height and the width."""
    height, width = (
        -(-side // strides) if padding == "same" else (side - size) // strides + 1
        for side in shape[:2]
    )
    return height, width


def max_norm(limit: float | None) -> dict[str, Any] | None:
    """Return the configuration of Keras' constraint that limits the norm of weights."""
    # Keras' default axis 0 bounds each unit of a dense layer; of a convolution it bounds each
    # column of the kernel, as in the tutorials that use it.
    return {"class_name": "MaxNorm", "config": {"max_value": limit}} if limit else None
