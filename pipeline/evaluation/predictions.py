"""What a model predicts for the images of a split, beside their true labels."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels

Probabilities = NDArray[np.float32]  # (n, num_classes), rows sum to 1
Hits = NDArray[np.bool_]  # (n,), one per image


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for n images, n at least 1.

    Attributes:
        class_names: in the order of the labels.
        y: (n,) true labels.
        probabilities: (n, num_classes).
    """

    class_names: tuple[str, ...]
    y: Labels
    probabilities: Probabilities

    @cached_property
    def predicted(self) -> Labels:
        """The most probable class of each image: (n,)."""
        labels: Labels = self.probabilities.argmax(axis=1)
        return labels

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the most probable class of each image: (n,)."""
        confidence: NDArray[np.float32] = self.probabilities.max(axis=1)
        return confidence

    @cached_property
    def right(self) -> Hits:
        """Whether each image is classified correctly: (n,)."""
        hits: Hits = self.predicted == self.y
        return hits

    def of(self, rows: NDArray[Any]) -> Self:
        """Return the predictions for some of the images, by their indices or by a mask."""
        return replace(self, y=self.y[rows], probabilities=self.probabilities[rows])

    def hits_by_class(self) -> dict[str, Hits]:
        """Return whether each image of a class is found, by class name; a class may have none."""
        return {name: self.right[self.y == label] for label, name in enumerate(self.class_names)}

    def recalls(self) -> dict[str, float]:
        """Return the recall of each class that has images, by class name."""
        return {
            name: float(hits.mean()) for name, hits in self.hits_by_class().items() if len(hits)
        }
