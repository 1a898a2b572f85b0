"""The search space of a recipe: the keys that a tuning may change, and their values."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from pipeline.artifacts.record import Frozen
from pipeline.models.layers import LAYERS
from pipeline.models.recipes import Recipe

Number = StrictInt | StrictFloat
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None
LAYER = "layers.<number from 0>.<key>, such as layers.2.dropout"
# A fraction of the way from low to high that does not hit a whole number by accident.
BETWEEN = 0.6180339


class Distribution(Frozen):
    """`{low: 1, high: 9}`, or `{choices: [16, 32]}`.

    Attributes:
        low: the smallest value; if low and high are whole numbers, all values are.
        high: the largest value.
        step: the distance between two values; by default 1, or any fraction.
        log: draw evenly on a logarithmic scale, for ranges over powers of ten.
        choices: a list of values instead of a range.
    """

    low: Number | None = None
    high: Number | None = None
    step: Annotated[Number, Field(gt=0)] | None = None
    log: bool = False
    choices: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Distribution":
        ends = [end for end in (self.low, self.high) if end is not None]
        if self.choices is not None:
            if ends or self.step is not None or self.log:
                raise ValueError("choices cannot be combined with low, high, step or log")
            return self
        if len(ends) < 2:
            raise ValueError("expected {low: …, high: …} or {choices: […]}")
        low, high = ends
        if low >= high:
            raise ValueError(f"low must be less than high; received {low} and {high}")
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and takes no step")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"a step between whole numbers is one; received {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values of the range are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def range(self) -> tuple[int | float, int | float]:
        """The ends of the range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    def samples(self) -> list[Any]:
        """Return values that stand for all: the choices, or the ends and a value between."""
        if self.choices is not None:
            return list(self.choices)
        low, high = self.range
        between = low + (self.step if self.step is not None else (high - low) * BETWEEN)
        return [low, high] if self.whole else [low, high, float(between)]


def _check(space: dict[str, Distribution]) -> dict[str, Distribution]:
    """Refuse keys that no recipe has, and values that a recipe does not take."""
    for key, distribution in space.items():
        fields = _fields(key)
        for value in distribution.samples():
            refusals = [reason for field in fields if (reason := _refusal(field, value))]
            if len(refusals) == len(fields):
                raise ValueError(f"{key}: {refusals[0]}; received {value!r}")
    return space


Space = Annotated[dict[str, Distribution], Field(min_length=1), AfterValidator(_check)]


def _fields(key: str) -> list[FieldInfo]:
    """Return the fields that a dotted key may mean: one, or one per kind of layer that has it."""
    first, *rest = key.split(".")
    if first == "layers":
        return _fields_of_layers(key, rest)
    model: type[Frozen] = Recipe
    for number, part in enumerate([first, *rest]):
        allowed = [name for name in model.model_fields if name not in ("then", "seed")]
        if part not in allowed:
            place = ".".join([first, *rest][:number]) or "a recipe"
            raise ValueError(f"{key}: {place} has no {part!r} to search; allowed: {_list(allowed)}")
        field = model.model_fields[part]
        nested = field.annotation
        if not (isinstance(nested, type) and issubclass(nested, Frozen)):
            if number < len(rest):
                raise ValueError(f"{key}: {part} is a value and has no keys")
            return [field]
        model = nested
    raise ValueError(f"{key}: name one of its keys: {_list(list(model.model_fields))}")


def _fields_of_layers(key: str, rest: list[str]) -> list[FieldInfo]:
    if len(rest) != 2 or not rest[0].isdigit():
        raise ValueError(f"{key}: expected {LAYER}")
    kinds = [model for model in LAYERS if rest[1] in model.model_fields]
    if not kinds:
        names = {name: None for model in LAYERS for name in model.model_fields}
        raise ValueError(f"{key}: no layer has {rest[1]!r}; allowed: {_list(list(names))}")
    return [model.model_fields[rest[1]] for model in kinds]


def _refusal(field: FieldInfo, value: Any) -> str | None:
    """Return the reason why a field does not take a value; None if it does."""
    annotation: Any = field.annotation
    if field.metadata:
        annotation = Annotated[annotation, *field.metadata]
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        text = error.errors()[0]["msg"]
        return f"{text[0].lower()}{text[1:]}"
    return None


def _list(names: list[str]) -> str:
    return ", ".join(names)
