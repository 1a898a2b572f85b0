"""The optimizers of a recipe: the keys of each, Keras' class, and its fast twin, if any.

`lbfgs` is none of Keras' classes: it takes all images at once, and trains the softmax layer alone.

A new optimizer is an entry of `OPTIMIZERS`. Classes are named, not imported, so that reading
params.yaml stays fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from pipeline.artifacts.record import Frozen
from pipeline.models.layer import FractionBelowOne

LearningRate = Annotated[float, Field(gt=0, le=10)]
FUSED_TENSORFLOW = {"tensorflow": "pipeline.training.backends.fused_tensorflow"}

# The keys that every optimizer of Keras takes.
SHARED = ("learning_rate", "weight_decay", "clip_norm", "clip_value")


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer that a recipe may name.

    Attributes:
        name: as a recipe names it.
        keras_class: its class in `keras.optimizers`; empty for `lbfgs`, see `training.logistic`.
        settings: the keys that it takes besides those of `SHARED`.
        learning_rate: the default.
        twins: by Keras backend, the module with a fast twin: a class of the same name that computes
            the same steps. On a backend without one, Keras' own class trains.
        variant: the module with a class of the same name that extends what Keras' class computes,
            and replaces it on every backend. It also takes the precision of the training.
    """

    name: str
    keras_class: str
    settings: tuple[str, ...] = ()
    learning_rate: float = 0.001
    twins: Mapping[str, str] = field(default_factory=dict)
    variant: str | None = None

    def takes(self, key: str) -> bool:
        """Return whether a key has a meaning."""
        return key in self.settings or (bool(self.keras_class) and key in SHARED)

    def module(self, backend: str) -> str:
        """Return the module whose class trains on a Keras backend."""
        return self.variant or self.twins.get(backend, "keras.optimizers")


OPTIMIZERS = (
    OptimizerKind("adam", "Adam", twins=FUSED_TENSORFLOW),
    OptimizerKind("adamw", "AdamW", twins=FUSED_TENSORFLOW),
    OptimizerKind("muon", "Muon", ("momentum",), variant="pipeline.training.optimizers"),
    OptimizerKind("rmsprop", "RMSprop", ("momentum",), twins=FUSED_TENSORFLOW),
    OptimizerKind("sgd", "SGD", ("momentum", "nesterov"), 0.01, FUSED_TENSORFLOW),
    OptimizerKind("lbfgs", "", ("l2",)),
)
OPTIMIZERS_BY_NAME = {kind.name: kind for kind in OPTIMIZERS}
if TYPE_CHECKING:
    OptimizerName: TypeAlias = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS_BY_NAME)]


class Optimizer(Frozen):
    """`adam`, or `{name: sgd, learning_rate: 0.01, momentum: 0.9}`; Keras' defaults otherwise.

    Attributes:
        clip_norm: the largest norm of the gradients of all weights together; longer ones are
            scaled down to it.
        clip_value: the largest value in a gradient, in either direction.
        l2: what `lbfgs` adds to the mean loss: half of it times the sum of the squares of the
            kernel, of standardised features; None chooses it on the validation split.
    """

    name: OptimizerName = "adam"
    learning_rate: LearningRate = 0.001
    momentum: FractionBelowOne = 0.0
    nesterov: bool = False
    weight_decay: FractionBelowOne | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    clip_value: Annotated[float, Field(gt=0)] | None = None
    l2: Annotated[float, Field(gt=0, le=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, dict):
            kind = OPTIMIZERS_BY_NAME.get(str(value.get("name", "adam")))
            rate = {"learning_rate": kind.learning_rate} if kind and kind.keras_class else {}
            value = {**rate, **value}
        return value

    @model_validator(mode="after")
    def _takes_its_settings(self) -> "Optimizer":
        for setting in self.model_dump(exclude={"name"}, exclude_defaults=True):
            takers = [kind.name for kind in OPTIMIZERS if kind.takes(setting)]
            if self.name not in takers:
                raise ValueError(f"{setting} belongs to {_join(takers)}; this is {self.name}")
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("gradients are clipped by clip_norm or by clip_value, not by both")
        return self


def _join(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
