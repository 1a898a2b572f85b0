"""Whether two trainings of one passport made the same model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from flows.reproduction.differences import Difference
from pipeline.artifacts.datasets import Splits
from pipeline.evaluation.predictions import Probabilities
from pipeline.evaluation.scoring import Scorer

# More causes than this are a list of all that is installed.
MOST_CAUSES = 5


@dataclass(frozen=True)
class WeightDifference:
    """An array of weights that is not the same in both.

    Attributes:
        apart: the largest difference of two of its numbers; None where the shapes differ, or where
            one is not finite.
    """

    name: str
    apart: float | None


@dataclass(frozen=True)
class Agreement:
    """Two models on the same test images.

    Attributes:
        arrays: how many arrays of weights there are.
        weights: those that are not identical, bit for bit.
        probabilities_apart: the largest difference of two probabilities.
        labels_agree: share of the test images that both call the same.
        accuracy: of the registered one and of the new one.
    """

    arrays: int
    weights: tuple[WeightDifference, ...]
    probabilities_apart: float
    labels_agree: float
    accuracy: tuple[float, float]

    @property
    def identical(self) -> bool:
        """Whether all weights are, bit for bit."""
        return not self.weights

    @property
    def weights_apart(self) -> float | None:
        """The largest difference of two weights; None where some cannot be compared."""
        apart = [row.apart for row in self.weights]
        known = [value for value in apart if value is not None]
        return max(known, default=0.0) if len(known) == len(apart) else None


@dataclass(frozen=True)
class Reproduction:
    """A model that was trained again, beside the one that is registered.

    Attributes:
        commit: whose code trained both.
        device: that the registered one was trained on, and the new one.
        deterministic: whether they were trained so that equal seeds give equal weights on CPU.
        differ: what is not as it was when the registered one was made.
        found: how the two compare.
        tolerance: the share of test images that may be called differently.
    """

    name: str
    version: int
    commit: str
    device: tuple[str, str]
    deterministic: bool
    differ: tuple[Difference, ...]
    found: Agreement
    tolerance: float

    @property
    def strict(self) -> bool:
        """Whether the weights must be identical."""
        on_cpu = all(device.startswith("cpu") for device in self.device)
        return self.deterministic and on_cpu and not any(row.of_machine for row in self.differ)

    @property
    def same(self) -> bool:
        """Whether the model was reproduced."""
        near = self.found.labels_agree >= 1 - self.tolerance
        return self.found.identical or (not self.strict and near)

    @property
    def causes(self) -> tuple[str, ...]:
        """Why the weights may not be identical, the likeliest first; empty where nobody knows."""
        likely = [str(row) for row in self.differ if row.likely]
        if len(likely) > MOST_CAUSES:
            likely[MOST_CAUSES:] = [f"{len(likely) - MOST_CAUSES} more of these"]
        known = []
        if not self.deterministic:
            known.append("it was not trained with deterministic: true")
        if any(device.startswith("gpu") for device in self.device):
            known.append("a GPU trained it, where the order of sums is free")
        return (*known, *likely)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        content = asdict(self)
        found = content.pop("found")
        return {
            **content,
            **found,
            "identical": self.found.identical,
            "weights_apart": self.found.weights_apart,
            "strict": self.strict,
            "reproduced": self.same,
            "causes": [] if self.found.identical else list(self.causes),
        }


def compare(old: keras.Model, new: keras.Model, splits: Splits) -> Agreement:
    """Hold a model that was trained again against the registered one.

    Args:
        old: the registered one.
        new: of the same input and the same classes.
        splits: only `test` is read.
    """
    said, again = (Scorer(model).probabilities(splits.x("test")) for model in (old, new))
    y = splits.y("test")
    return Agreement(
        arrays=len(old.weights),
        weights=weights_apart(named(old), named(new)),
        probabilities_apart=float(np.abs(said - again).max()),
        labels_agree=_share(said.argmax(axis=1) == again.argmax(axis=1)),
        accuracy=(_right(said, y), _right(again, y)),
    )


def named(model: keras.Model) -> list[tuple[str, NDArray[Any]]]:
    """Return the name of each array of weights with its numbers, in the order of the layers."""
    return [(variable.path, np.asarray(variable)) for variable in model.weights]


def weights_apart(
    old: Sequence[tuple[str, NDArray[Any]]], new: Sequence[tuple[str, NDArray[Any]]]
) -> tuple[WeightDifference, ...]:
    """Return the arrays that are not identical, bit for bit, in two models of one recipe.

    They are taken in order: the names that Keras gives may count what was built before.
    """
    pairs = zip(old, new, strict=False)
    rows = [WeightDifference(name, _apart(a, b)) for (name, a), (_, b) in pairs if not _same(a, b)]
    shorter, longer = sorted((old, new), key=len)
    return (*rows, *(WeightDifference(name, None) for name, _ in longer[len(shorter) :]))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    if a.shape != b.shape:
        return None
    largest = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    return largest if np.isfinite(largest) else None


def _right(probabilities: Probabilities, y: NDArray[Any]) -> float:
    return _share(probabilities.argmax(axis=1) == y)


def _share(answers: NDArray[Any]) -> float:
    return float(answers.mean())
