"""What the steps of a training, or of a measurement, take and sum up to, on any backend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

# Bytes at whose multiples an array begins that is computed on as it lies.
ALIGNMENT = 64
_PIXELS_PER_FORWARD = 2**18  # so that the activations of a forward pass stay small
Rows = NDArray[np.int32]  # (steps, batch_size), each the index of an image
Mirrored = NDArray[np.bool_]  # of the same shape: which of them are mirrored from left to right


@dataclass(frozen=True)
class Totals:
    """Sums over the steps that were run; fewer than asked for where the loss ceased to be finite.

    Attributes:
        loss: sum over the images.
        correct: images whose most probable class is theirs.
        predicted: how often each class was predicted, (num_classes,).
    """

    steps: int
    loss: float
    correct: int
    predicted: NDArray[np.int64]

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.steps + other.steps,
            self.loss + other.loss,
            self.correct + other.correct,
            self.predicted + other.predicted,
        )

    @property
    def mean_loss(self) -> float:
        """The loss per image."""
        return self.loss / int(self.predicted.sum())

    @property
    def accuracy(self) -> float:
        """The share of correct answers."""
        return self.correct / int(self.predicted.sum())


# images, labels, rows, mirrored
Train = Callable[[Any, Any, Rows, Mirrored], Totals]
# images, labels
Measure = Callable[[Any, Any], Totals]


def images_per_forward(image_shape: tuple[int, ...]) -> int:
    """Return how many images are measured at once."""
    return max(1, min(1000, _PIXELS_PER_FORWARD // int(np.prod(image_shape[:2]))))


def score(labels: Any, probabilities: Any, losses: Any, counted: Any = None) -> Any:
    """Sum up one batch: loss, correct answers, predictions of each class.

    Args:
        labels: `int32`, (n,).
        probabilities: (n, num_classes).
        losses: of each image, (n,).
        counted: `bool`, (n,): the images that count; None: all.
    """
    ops = keras.ops
    said = ops.cast(ops.argmax(probabilities, axis=1), "int32")
    if counted is not None:
        said, losses = ops.where(counted, said, -1), ops.where(counted, losses, 0.0)
    correct = ops.sum(ops.cast(ops.equal(said, labels), "int32"))
    predicted = ops.sum(ops.one_hot(said, probabilities.shape[-1], dtype="int32"), axis=0)
    return ops.sum(losses), correct, predicted


def nothing(num_classes: int) -> Any:
    """Return the sums of no batch."""
    ops = keras.ops
    return ops.zeros([]), ops.zeros([], "int32"), ops.zeros([num_classes], "int32")


def added(totals: Any, more: Any) -> Any:
    """Add two sums."""
    return tuple(a + b for a, b in zip(totals, more, strict=True))


def read(count: Any, totals: Any) -> Totals:
    """Bring the sums back from the device."""
    loss, correct, predicted = map(np.asarray, totals)
    return Totals(int(count), float(loss), int(correct), predicted.astype(np.int64))
