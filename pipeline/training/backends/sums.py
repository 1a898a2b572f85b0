"""Loss, correct answers and predictions, summed over steps on the device, on any backend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

# An array that begins at a multiple of so many bytes is computed on without a copy.
ALIGNMENT = 64
_PIXELS_PER_FORWARD = 2**18  # so that the activations of a forward pass stay small
Indices = NDArray[np.int32]  # of images, (steps, batch_size)
Mirrored = NDArray[np.bool_]  # which of these images are mirrored from left to right


@dataclass(frozen=True)
class Sums:
    """Sums over the steps that were run; they stop early when the loss is not finite.

    Attributes:
        steps: the number of steps that were run.
        loss: the sum over the images.
        correct: the number of images whose most probable class is the right one.
        predicted: how often each class was predicted, (num_classes,).
    """

    steps: int
    loss: float
    correct: int
    predicted: NDArray[np.int64]

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
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
        """The fraction of correct answers."""
        return self.correct / int(self.predicted.sum())


# images, labels, indices, mirrored
Train = Callable[[Any, Any, Indices, Mirrored], Sums]
# images, labels
Measure = Callable[[Any, Any], Sums]


def images_per_forward(image_shape: tuple[int, ...]) -> int:
    """Return how many images are measured at once."""
    return max(1, min(1000, _PIXELS_PER_FORWARD // int(np.prod(image_shape[:2]))))


def score(labels: Any, probabilities: Any, losses: Any, counted: Any = None) -> Any:
    """Sum up one batch: loss, correct answers, predictions of each class.

    Args:
        labels: `int32`, (n,).
        probabilities: (n, num_classes).
        losses: one per image, (n,).
        counted: `bool`, (n,): the images that count; None counts all.
    """
    ops = keras.ops
    predictions = ops.cast(ops.argmax(probabilities, axis=1), "int32")
    if counted is not None:
        predictions, losses = ops.where(counted, predictions, -1), ops.where(counted, losses, 0.0)
    correct = ops.sum(ops.cast(ops.equal(predictions, labels), "int32"))
    predicted = ops.sum(ops.one_hot(predictions, probabilities.shape[-1], dtype="int32"), axis=0)
    return ops.sum(losses), correct, predicted


def zero_sums(num_classes: int) -> Any:
    """Return sums that are 0."""
    ops = keras.ops
    return ops.zeros([]), ops.zeros([], "int32"), ops.zeros([num_classes], "int32")


def add_sums(sums: Any, more: Any) -> Any:
    """Add two sums."""
    return tuple(a + b for a, b in zip(sums, more, strict=True))


def read_sums(count: Any, sums: Any) -> Sums:
    """Copy the sums from the device."""
    loss, correct, predicted = map(np.asarray, sums)
    return Sums(int(count), float(loss), int(correct), predicted.astype(np.int64))
