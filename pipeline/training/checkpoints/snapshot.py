"""A copy of all that a training has reached, and the way back.

Each field of `TrainingState` is something with variables, such as a model or an optimizer, an
array, a list of arrays or variables, or a value that Pydantic can write as JSON. A new field needs
nothing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.errors import TrainingError
from pipeline.training.state import TrainingState

Array = NDArray[Any]
# Set before the first epoch; with another value it would be another training.
_FIXED = ("seed", "keep", "precision")


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after an epoch.

    Attributes:
        arrays: by `field` or `field/number`.
        values: all else, by field, as JSON has it.
    """

    arrays: dict[str, Array]
    values: dict[str, Any]

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(self.values["epochs"])


def take(state: TrainingState) -> Snapshot:
    """Copy a state: what the training changes next does not change the copy."""
    arrays: dict[str, Array] = {}
    values: dict[str, Any] = {}
    for name, kind in _kinds().items():
        value = getattr(state, name)
        if isinstance(value, np.ndarray):
            arrays[name] = value.copy()
        elif (listed := _listed(value)) is not None:
            arrays |= {_key(name, at): np.array(each) for at, each in enumerate(listed)}
        else:
            values[name] = TypeAdapter(kind).dump_python(value, mode="json")
    return Snapshot(arrays, values)


def put_back(snapshot: Snapshot, state: TrainingState) -> None:
    """Bring a state that was just made to where a snapshot was taken.

    Raises:
        TrainingError: the snapshot is of another training; nothing was changed.
    """
    kinds = _kinds()
    found = {
        name: TypeAdapter(kinds[name]).validate_python(value)
        for name, value in snapshot.values.items()
    }
    for name in _FIXED:
        if found[name] != getattr(state, name):
            raise TrainingError(
                f"the checkpoint is of a training with {name} {found[name]}, and this one has "
                f"{getattr(state, name)}; it is removed: start the training again",
                retryable=True,
            )
    assigned: list[tuple[Any, Array]] = []
    for name in kinds.keys() - found.keys():
        variables = _listed(getattr(state, name)) or []
        saved = [v for key, v in snapshot.arrays.items() if key.partition("/")[0] == name]
        if not all(hasattr(variable, "assign") for variable in variables) or not variables:
            found[name] = saved[0] if name in snapshot.arrays else saved
            continue
        if [tuple(v.shape) for v in variables] != [array.shape for array in saved]:
            raise TrainingError(
                f"the checkpoint is of another training: its {name} differs; it is removed: start "
                "the training again",
                retryable=True,
            )
        assigned += zip(variables, saved, strict=True)
    for variable, array in assigned:
        variable.assign(array)
    for name, value in found.items():
        setattr(state, name, value)


def _kinds() -> dict[str, Any]:
    hints = get_type_hints(TrainingState)
    return {field.name: hints[field.name] for field in fields(TrainingState)}


def _listed(value: Any) -> Sequence[Any] | None:
    """Return the variables or arrays of a field; None for a field without any."""
    if hasattr(value, "variables"):
        # With the seeds of dropout, which are not among the weights.
        return list(value.variables)
    if isinstance(value, list | tuple) and value and all(hasattr(v, "shape") for v in value):
        return value
    return None


def _key(name: str, at: int) -> str:
    return f"{name}/{at:04}"
