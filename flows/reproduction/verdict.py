"""Whether two trainings of one passport made the same model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from flows.reproduction.differences import Difference
from pipeline.artifacts.datasets import Splits
from pipeline.errors import ArtifactError
from pipeline.evaluation.predictions import Probabilities
from pipeline.evaluation.scoring import Scorer
from pipeline.registry.version_images import VersionImages

# More causes than this are a list of all that is installed.
MOST_CAUSES = 5


@dataclass(frozen=True)
class WeightDifference:
    """An array of weights that is not the same in both.

    Attributes:
        max_difference: the largest difference of two of its numbers; None where the shapes
            differ, or where one is not finite.
    """

    name: str
    max_difference: float | None


@dataclass(frozen=True)
class Agreement:
    """Two models on the same test images.

    Attributes:
        arrays: how many arrays of weights there are.
        weights: those that are not identical, bit for bit.
        max_probability_difference: the largest difference of two probabilities.
        labels_agree: share of the test images that both call the same.
        accuracy: the accuracy of the registered one and of the new one.
        images: the test images that both are asked about.
        left_out: those that are left out, as they are in train or val as well; None where the data
            do not say which images they are.
    """

    arrays: int
    weights: tuple[WeightDifference, ...]
    max_probability_difference: float
    labels_agree: float
    accuracy: tuple[float, float]
    images: int = 0
    left_out: int | None = None

    @property
    def identical(self) -> bool:
        """Whether all weights are, bit for bit."""
        return not self.weights

    @property
    def max_weight_difference(self) -> float | None:
        """The largest difference of two weights; None where some cannot be compared."""
        differences = [row.max_difference for row in self.weights]
        known = [value for value in differences if value is not None]
        return max(known, default=0.0) if len(known) == len(differences) else None


@dataclass(frozen=True)
class Reproduction:
    """A model that was trained again, beside the one that is registered.

    Attributes:
        commit: whose code trained both.
        device: that the registered one was trained on, and the new one.
        deterministic: whether they were trained so that equal seeds give equal weights on CPU.
        differ: what has changed since the registered one was made.
        found: how far the two models agree.
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
        """Likely causes of weights that are not identical, the likeliest first; may be empty."""
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
        """Return all of it as JSON values, under the names that scripts know."""
        content = asdict(self)
        found = content.pop("found")
        return {
            **content,
            "arrays": found["arrays"],
            "weights": [
                {"name": row.name, "apart": row.max_difference} for row in self.found.weights
            ],
            "probabilities_apart": found["max_probability_difference"],
            "labels_agree": found["labels_agree"],
            "accuracy": found["accuracy"],
            "images": found["images"],
            "left_out": found["left_out"],
            "identical": self.found.identical,
            "weights_apart": self.found.max_weight_difference,
            "strict": self.strict,
            "reproduced": self.same,
            "causes": [] if self.found.identical else list(self.causes),
        }


def compare(old: keras.Model, new: keras.Model, splits: Splits) -> Agreement:
    """Compare a model that was trained again with the registered one.

    Args:
        old: the registered one.
        new: the new model, with the same input and classes.
        splits: that both were trained on.
    """
    seen = _seen(splits)
    # What both have seen says little, but more than nothing.
    rows = np.ones(len(splits.y("test")), np.bool_) if seen is None or seen.all() else ~seen
    x, y = splits.x("test")[rows], splits.y("test")[rows]
    before, after = (Scorer(model).probabilities(x) for model in (old, new))
    return Agreement(
        arrays=len(old.weights),
        weights=weight_differences(named(old), named(new)),
        max_probability_difference=float(np.abs(before - after).max()),
        labels_agree=_share(before.argmax(axis=1) == after.argmax(axis=1)),
        accuracy=(_right(before, y), _right(after, y)),
        images=len(y),
        left_out=None if seen is None else len(rows) - len(y),
    )


def _seen(splits: Splits) -> NDArray[np.bool_] | None:
    """Return which test images are in train or val as well; None where that is not known."""
    try:
        images = VersionImages.of(splits)
    except ArtifactError:  # made by the code of an earlier commit
        return None
    return images.has_seen(images.test_rows)


def named(model: keras.Model) -> list[tuple[str, NDArray[Any]]]:
    """Return the name of each array of weights with its numbers, in the order of the layers."""
    return [(variable.path, np.asarray(variable)) for variable in model.weights]


def weight_differences(
    old: Sequence[tuple[str, NDArray[Any]]], new: Sequence[tuple[str, NDArray[Any]]]
) -> tuple[WeightDifference, ...]:
    """Return the arrays that are not identical, bit for bit, in two models of one recipe.

    They are taken in order: the names that Keras gives may count what was built before.
    """
    pairs = zip(old, new, strict=False)
    rows = [
        WeightDifference(name, _max_difference(a, b))
        for (name, a), (_, b) in pairs
        if not _same(a, b)
    ]
    shorter, longer = sorted((old, new), key=len)
    return (*rows, *(WeightDifference(name, None) for name, _ in longer[len(shorter) :]))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _max_difference(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    if a.shape != b.shape:
        return None
    largest = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    return largest if np.isfinite(largest) else None


def _right(probabilities: Probabilities, y: NDArray[Any]) -> float:
    return _share(probabilities.argmax(axis=1) == y)


def _share(answers: NDArray[Any]) -> float:
    return float(answers.mean())
