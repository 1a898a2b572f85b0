"""What a recipe may say: layers, optimizer, loss, schedule, epochs, augmentation, seed."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from pipeline.artifacts.record import Frozen

Activation = Literal["linear", "relu", "gelu", "silu", "elu", "tanh", "sigmoid"]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


OUTPUT_LAYER = "probabilities"  # the name of the softmax layer, which is in no recipe


class Conv(Frozen):
    """`{conv: filters, …}`: a square two-dimensional convolution.

    Attributes:
        whiten: its kernels are not trained but computed from the training images, as the first
            layer of all: pairs of opposites, whose outputs on patches of these are not correlated
            and vary equally.
    """

    conv: Positive
    kernel_size: Positive = 3
    strides: Positive = 1
    padding: Literal["same", "valid"] = "same"
    activation: Activation = "relu"
    use_bias: bool = True
    max_norm: Annotated[float, Field(gt=0)] | None = None
    whiten: bool = False


class Dense(Frozen):
    """`{dense: units, …}`: a fully connected layer."""

    dense: Positive
    activation: Activation = "relu"
    use_bias: bool = True
    max_norm: Annotated[float, Field(gt=0)] | None = None


class MaxPool(Frozen):
    """`{max_pool: size}`: the largest value of each square, moved by its own size."""

    max_pool: Annotated[int, Field(ge=2)]
    padding: Literal["same", "valid"] = "valid"


class Dropout(Frozen):
    """`{dropout: rate}`."""

    dropout: Share


class Activate(Frozen):
    """`{activation: gelu}`: an activation as a layer of its own, say after a batch_norm."""

    activation: Activation


class BatchNorm(Frozen):
    """`batch_norm`, or `{batch_norm: true, momentum: 0.9}`; scale: whether it learns a factor."""

    batch_norm: Literal[True] = True
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    scale: bool = True


class Flatten(Frozen):
    """`flatten`."""

    flatten: Literal[True] = True


class GlobalAveragePool(Frozen):
    """`global_average_pool`: the mean of each channel."""

    global_average_pool: Literal[True] = True


# The order decides which key names the layer, so `activation` comes last:
# in `{dense: 16, activation: relu}` it is a property of the dense layer.
LAYERS: dict[str, type[Frozen]] = {
    "conv": Conv,
    "dense": Dense,
    "max_pool": MaxPool,
    "global_average_pool": GlobalAveragePool,
    "flatten": Flatten,
    "dropout": Dropout,
    "batch_norm": BatchNorm,
    "activation": Activate,
}


def layer_kind(layer: Any) -> str | None:
    """Return the key that names the layer, or None where there is none."""
    if isinstance(layer, Frozen):
        return next((kind for kind, model in LAYERS.items() if type(layer) is model), None)
    keys = layer if isinstance(layer, dict) else [layer]
    return next((kind for kind in LAYERS if kind in keys), None)


def _as_mapping(layer: Any) -> Any:
    """Let a layer without properties be written as its bare name."""
    return {layer: True} if isinstance(layer, str) else layer


Layer = Annotated[
    Annotated[Conv, Tag("conv")]
    | Annotated[Dense, Tag("dense")]
    | Annotated[MaxPool, Tag("max_pool")]
    | Annotated[GlobalAveragePool, Tag("global_average_pool")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Dropout, Tag("dropout")]
    | Annotated[BatchNorm, Tag("batch_norm")]
    | Annotated[Activate, Tag("activation")],
    Discriminator(
        layer_kind,
        custom_error_type="layer",
        custom_error_message=f"a layer is one of: {', '.join(LAYERS)}",
    ),
    BeforeValidator(_as_mapping),
]

DEFAULT_LEARNING_RATES = {"sgd": 0.01}  # all others: 0.001


class Optimizer(Frozen):
    """`adam`, or `{name: sgd, learning_rate: 0.01, momentum: 0.9}`; Keras' defaults otherwise."""

    name: Literal["adam", "adamw", "muon", "rmsprop", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.001
    momentum: Share = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, dict):
            rate = DEFAULT_LEARNING_RATES.get(str(value.get("name")), 0.001)
            value = {"learning_rate": rate, **value}
        return value

    @model_validator(mode="after")
    def _momentum_has_a_place(self) -> "Optimizer":
        if self.momentum and self.name not in ("sgd", "rmsprop", "muon"):
            raise ValueError(f"momentum belongs to sgd, rmsprop and muon; this is {self.name}")
        if self.nesterov and self.name != "sgd":
            raise ValueError(f"nesterov belongs to sgd; this is {self.name}")
        return self


class Schedule(Frozen):
    """How the learning rate moves over all steps of all phases.

    `constant`; `inverse_time`: rate / (1 + decay * step); `cosine`: down to `final` of the
    rate; `triangular`: straight up and straight down to `final`. `warmup` is the share of all
    steps that `cosine` and `triangular` climb.
    """

    name: Literal["constant", "inverse_time", "cosine", "triangular"] = "constant"
    decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Share = 0.0
    final: Share = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Augmentation(Frozen):
    """Random changes of the training images, drawn anew for every image of every batch.

    Attributes:
        shift: largest move in either direction, as a share of the height and width.
        flip: mirror half of the images; `alternating` mirrors each image from left to right in
            every second epoch, so that it is seen both ways in any two.
        rotation: largest turn in either direction, in degrees.
        zoom: largest enlargement or reduction, as a share.
        crop: pixels of reflected border from which a window of the old size is cut.
        cutout: side of a square that is blanked, as a share of the image's.
        fill: what stands where shift, rotation and zoom leave nothing.
    """

    shift: Share = 0.0
    flip: Literal["none", "horizontal", "alternating", "vertical", "both"] = "none"
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Share = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    cutout: Share = 0.0
    fill: Literal["constant", "nearest", "reflect"] = "nearest"

    @property
    def mirrors(self) -> bool:
        """Whether images are mirrored from left to right."""
        return self.flip in ("horizontal", "alternating", "both")


class Phase(Frozen):
    """A further stretch of training that continues with an augmentation of its own."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    augmentation: Augmentation = Augmentation()


class Recipe(Frozen):
    """One model as data. The softmax layer with one unit per class is added by itself.

    Attributes:
        layers: from the scaled image to the last hidden layer.
        then: phases that follow the first `epochs`, with the optimizer's state kept.
        keep: the weights of the epoch that was `best` on the validation split, or the `last`.
        test_time_augmentation: what the finished model looks at besides each image: its mirror
            image (`flip`), and both moved by one pixel to two corners (`flip_and_shift`). It
            answers with the mean, at two and six times the work.
        precision: of the layers while they are trained; `bfloat16` where the hardware is made for
            it and computes the same gradients, else `float32`. What is kept is always `float32`.
        seed: of weights, order and augmentation; None takes the `seed` of params.yaml.
    """

    layers: tuple[Layer, ...]
    optimizer: Optimizer = Optimizer()
    loss: Literal["sparse_categorical_crossentropy", "categorical_crossentropy"] = (
        "sparse_categorical_crossentropy"
    )
    label_smoothing: Share = 0.0
    schedule: Schedule = Schedule()
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    augmentation: Augmentation = Augmentation()
    then: tuple[Phase, ...] = ()
    keep: Literal["best", "last"] = "best"
    test_time_augmentation: Literal["none", "flip", "flip_and_shift"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _smoothing_has_a_place(self) -> "Recipe":
        if self.label_smoothing and self.loss != "categorical_crossentropy":
            raise ValueError("label_smoothing needs loss: categorical_crossentropy")
        return self

    @model_validator(mode="after")
    def _whitening_has_a_place(self) -> "Recipe":
        for layer in self.layers[1:]:
            if isinstance(layer, Conv) and layer.whiten:
                raise ValueError("whiten belongs to the first layer: it is computed from images")
        return self

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All stretches of training in order, the first one included."""
        return (Phase(epochs=self.epochs, augmentation=self.augmentation), *self.then)
