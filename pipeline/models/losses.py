"""The loss of a recipe, and the weight that each class has in it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pipeline.artifacts.record import Frozen

_SETTINGS_OF_FOCAL = ("gamma", "alpha")


class Loss(Frozen):
    """`categorical_crossentropy`, or `{name: focal, gamma: 2, alpha: 0.25}`.

    Attributes:
        gamma: of `focal`: how much less an image counts that is classified well; 0 for no less.
        alpha: of `focal`: a factor for the whole loss, as in Keras.
    """

    name: Literal["sparse_categorical_crossentropy", "categorical_crossentropy", "focal"] = (
        "sparse_categorical_crossentropy"
    )
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.25

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _takes_its_settings(self) -> "Loss":
        given = [key for key in _SETTINGS_OF_FOCAL if key in self.model_fields_set]
        if given and self.name != "focal":
            raise ValueError(f"{given[0]} belongs to focal; this is {self.name}")
        return self

    @model_serializer(mode="wrap")
    def _as_name(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Write the name alone where there is nothing else to say, as recipes always did."""
        return dump(self) if self.name == "focal" else self.name


def _check_weights(value: Any) -> Any:
    """Refuse what is neither `balanced` nor weights by name; names may be numbers in YAML."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            "expected balanced, or weights by the name of the class, such as {cat: 2.5}; "
            f"received {value!r}"
        )
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"the weight of {name} must be a number above 0; received {weight!r}")
    return {str(name): float(weight) for name, weight in value.items()}


# The weight of each class in the loss.
ClassWeights = Annotated[
    Literal["balanced"] | dict[str, float] | None, BeforeValidator(_check_weights)
]
