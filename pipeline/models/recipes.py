"""The schema of a recipe: layers, optimizer, loss, schedule, epochs, augmentation, seed."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.artifacts.record import Frozen
from pipeline.models.augmentation import Augmentation as Augmentation
from pipeline.models.backbones.layer import Backbone, Trainable, trained_layers
from pipeline.models.backbones.weights import Weights
from pipeline.models.layer import FractionBelowOne, Layer, SingleLayer
from pipeline.models.layers import BY_KIND, BatchNorm, Conv, Dense, Dropout, layer_kind
from pipeline.models.losses import ClassWeights, Loss
from pipeline.models.optimizers import LearningRate, Optimizer

OUTPUT_LAYER = "probabilities"  # the name of the softmax layer, which is in no recipe
VIEWS_LAYER = "mean"  # of the views of test-time augmentation; likewise

# Layers that are trained, or differ from step to step.
LEARNING = (Conv, Dense, BatchNorm, Dropout)
# Keys of a recipe that mean something where its optimizer is lbfgs.
TAKEN_BY_LBFGS = (
    *("layers", "optimizer", "epochs", "class_weights", "test_time_augmentation"),
    *("calibrate", "seed"),
)


def _as_mapping(layer: Any) -> Any:
    """Accept a bare name for a layer without properties."""
    return {layer: True} if isinstance(layer, str) else layer


if TYPE_CHECKING:
    AnyLayer: TypeAlias = Layer
else:
    AnyLayer = Annotated[
        reduce(or_, (Annotated[layer, Tag(kind)] for kind, layer in BY_KIND.items())),
        Discriminator(
            layer_kind,
            custom_error_type="layer",
            custom_error_message=f"a layer is one of: {', '.join(BY_KIND)}",
        ),
        BeforeValidator(_as_mapping),
    ]


class Schedule(Frozen):
    """The learning rate schedule, over all steps of all phases up to one with a rate of its own.

    `constant`; `inverse_time`: rate / (1 + decay * step); `cosine`: half a wave down to `final`
    times the rate; `triangular`: linear to `final` times the rate. `cosine` and `triangular`
    first rise linearly during the fraction `warmup` of all steps.
    """

    name: Literal["constant", "inverse_time", "cosine", "triangular"] = "constant"
    decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: FractionBelowOne = 0.0
    final: FractionBelowOne = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Phase(Frozen):
    """A further phase of a training, with its own augmentation.

    Attributes:
        trainable: which layers of the backbone are trained from here on; None leaves it as it was.
        learning_rate: the highest from here on: the schedule begins anew. None goes on with it.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    augmentation: Augmentation = Augmentation()
    trainable: Trainable | None = None
    learning_rate: LearningRate | None = None


class Recipe(Frozen):
    """One model as data. A softmax layer with one unit per class is added automatically.

    Attributes:
        layers: from the scaled image to the last hidden layer.
        class_weights: the weight of each class in the loss that is trained on: n / (classes *
            count) if `balanced`, or by name, and 1 for a class that is not named.
        sampling: an epoch has each training image once (`shuffle`), or as many images, but of
            every class equally many (`balanced`).
        then: phases that follow the first `epochs`, with the optimizer's state kept.
        keep: the weights of the epoch that is `best` on the validation split, or the `last`.
        patience: a phase ends after so many epochs in which none was better than the best; None
            trains all epochs.
        ema: how much of the exponential moving average of the weights stays at each step; it is
            validated and kept in place of the weights. 0 has no average.
        test_time_augmentation: the views that the finished model averages over: each image and its
            mirror image (`flip`), or both also moved by one pixel to two corners
            (`flip_and_shift`), which takes two and six times the work.
        calibrate: whether the confidence of the finished model is fitted to the validation split,
            by one temperature, which changes no class.
        precision: the type of the layers while they are trained; `bfloat16` only if the hardware
            supports it and computes the same gradients. The saved model is always `float32`.
        seed: seeds weights, order and augmentation; None takes the `seed` of params.yaml.
    """

    layers: tuple[AnyLayer, ...]
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    label_smoothing: FractionBelowOne = 0.0
    class_weights: ClassWeights = None
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    schedule: Schedule = Schedule()
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    augmentation: Augmentation = Augmentation()
    then: tuple[Phase, ...] = ()
    keep: Literal["best", "last"] = "best"
    patience: Annotated[int, Field(ge=1, le=10_000)] | None = None
    ema: FractionBelowOne = 0.0
    test_time_augmentation: Literal["none", "flip", "flip_and_shift"] = "none"
    calibrate: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @model_validator(mode="after")
    def _smoothing_has_a_place(self) -> "Recipe":
        if self.label_smoothing and self.loss.name == "sparse_categorical_crossentropy":
            raise ValueError("label_smoothing needs loss: categorical_crossentropy or focal")
        return self

    @model_validator(mode="after")
    def _is_balanced_once(self) -> "Recipe":
        if self.class_weights == "balanced" and self.sampling == "balanced":
            raise ValueError(
                "class_weights: balanced and sampling: balanced each make up for classes of "
                "different size, together twice: choose one"
            )
        return self

    @model_validator(mode="after")
    def _patience_has_a_best(self) -> "Recipe":
        if self.patience and self.keep != "best":
            raise ValueError("patience waits for a better epoch than the best: it needs keep: best")
        return self

    @model_validator(mode="after")
    def _whitening_has_a_place(self) -> "Recipe":
        for layer in self.layers[1:]:
            if isinstance(layer, Conv) and layer.whiten:
                raise ValueError("whiten belongs to the first layer: it is computed from images")
        return self

    @model_validator(mode="after")
    def _lbfgs_has_only_the_softmax_layer(self) -> "Recipe":
        if not self.fits_only_the_softmax:
            return self
        if learns := next((part for part in self.parts if isinstance(part, LEARNING)), None):
            raise ValueError(
                f"optimizer lbfgs trains the softmax layer alone, and {layer_kind(learns)} is "
                "trained or random: take another optimizer, or a backbone with trainable: none, "
                "or flatten, as the only layer"
            )
        if self.backbone and self.backbone.trainable != "none":
            raise ValueError("optimizer lbfgs needs a backbone with trainable: none")
        for key, field in type(self).model_fields.items():
            if key not in TAKEN_BY_LBFGS and getattr(self, key) != field.default:
                raise ValueError(f"{key} has no meaning with optimizer lbfgs: leave it out")
        return self

    @property
    def fits_only_the_softmax(self) -> bool:
        """Whether the softmax layer is trained alone, on all images at once."""
        return self.optimizer.name == "lbfgs"

    @model_validator(mode="after")
    def _backbone_has_a_place(self) -> "Recipe":
        if any(isinstance(layer, Backbone) for layer in self.layers[1:]):
            raise ValueError("a backbone is the first layer: it takes images")
        if not self.backbone and any(phase.trainable for phase in self.then):
            raise ValueError("trainable is about a backbone, and the recipe has no backbone")
        return self

    @property
    def backbone(self) -> Backbone | None:
        """The backbone that it begins with, if any."""
        first = self.layers[0] if self.layers else None
        return first if isinstance(first, Backbone) else None

    @property
    def weights(self) -> Weights | None:
        """The weights of its backbone, if any."""
        return self.backbone.kind.weights if self.backbone else None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases in order, including the first one; each says what is trainable."""
        trainable = self.backbone.trainable if self.backbone else None
        first = {"epochs": self.epochs, "augmentation": self.augmentation}
        phases = [Phase(**first, trainable=trainable)]
        for phase in self.then:
            trainable = phase.trainable or trainable
            phases.append(phase.model_copy(update={"trainable": trainable}))
        return tuple(phases)

    @property
    def ever_trainable(self) -> Trainable | None:
        """What is trainable in the phase that trains most of the backbone, if there is one."""
        choices = [phase.trainable for phase in self.phases if phase.trainable]
        return max(choices, key=trained_layers, default=None)

    @property
    def total_epochs(self) -> int:
        """The number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def parts(self) -> tuple[SingleLayer, ...]:
        """The parts of all layers, which become one Keras layer each, in order."""
        return tuple(part for layer in self.layers for part in layer.parts())

    @property
    def convolves(self) -> bool:
        """Whether there is a convolution among its layers."""
        return any(isinstance(part, (Conv, Backbone)) for part in self.parts)
