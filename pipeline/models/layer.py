"""What a layer of a recipe is, whichever it is: its parts, each of which is a layer of Keras."""

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
    """A layer of a recipe. Its first field has its name."""

    def parts(self) -> "tuple[SingleLayer, ...]":
        """Return what becomes one layer of Keras each, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no parts")


class SingleLayer(Layer):
    """A layer that becomes one of Keras; by default one without weights that keeps the shape.

    Attributes:
        keras_class: its name in `keras.layers`.
    """

    keras_class: ClassVar[str]

    def parts(self) -> "tuple[SingleLayer, ...]":
        """Return the layer itself."""
        return (self,)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the Keras class, without the name."""
        return {}

    def multiplications(self, shape: Shape) -> int:
        """Return the multiplications that one image takes, forward, in its kernel."""
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
    """Return the constraint that keeps the norm of weights below a limit, as Keras reads it."""
    # Keras' default axis 0 bounds each unit of a dense layer; on a convolution it bounds each
    # column of the kernel, as the tutorials that ask for it do.
    return {"class_name": "MaxNorm", "config": {"max_value": limit}} if limit else None
