"""Compiled TensorFlow functions: many training steps at a time, and the forward pass.

The data lies on the device once, as `uint8`; each batch is gathered by index inside the graph, so
Python is asked about once a second and not once a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.artifacts import Images, Labels
from pipeline.augment import augment
from pipeline.recipes import Augmentation, Recipe

_PIXELS_PER_FORWARD = 2**20  # per batch of a forward pass, so that its activations stay small


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


class Resident:
    """Images and labels on the device."""

    def __init__(self, x: Images, y: Labels) -> None:
        self.x = tf.convert_to_tensor(x)
        self.y = tf.convert_to_tensor(y, tf.int32)

    def batch(self, indices: Any) -> tuple[Any, Any]:
        """Gather images and labels."""
        return tf.gather(self.x, indices), tf.gather(self.y, indices)


def compile_training(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    augmentation: Augmentation,
    data: Resident,
    seed: int,
) -> Callable[[NDArray[np.int64]], Totals]:
    """Return a function that takes indices, (steps, batch_size), and trains on each row in turn."""
    loss_of, score = _loss(recipe, model.output_shape[-1]), _scorer(model.output_shape[-1])
    variables = model.trainable_variables

    def train_step(indices: Any) -> Any:
        images, labels = data.batch(indices)
        images = augment(images, augmentation, [seed, tf.cast(optimizer.iterations, tf.int32)])
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            losses = loss_of(labels, probabilities)
            loss = tf.reduce_mean(losses) + sum(model.losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return score(labels, probabilities, losses)

    # One trace serves every number of steps, and the smaller last batch of an epoch as well.
    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])  # type: ignore[untyped-decorator]
    def train_steps(batches: Any) -> Any:
        step, totals = tf.constant(0), _zero(model.output_shape[-1])
        while step < tf.shape(batches)[0] and tf.math.is_finite(totals[0]):
            totals = _add(totals, train_step(batches[step]))
            step += 1
        return step, totals

    return lambda batches: _read(*train_steps(tf.constant(batches, tf.int32)))


def compile_forward(model: keras.Model, recipe: Recipe, data: Resident) -> Callable[[], Totals]:
    """Return a function that measures the model on all of the data, in large batches."""
    loss_of, score = _loss(recipe, model.output_shape[-1]), _scorer(model.output_shape[-1])
    count = int(data.x.shape[0])
    size = max(1, min(1000, _PIXELS_PER_FORWARD // int(np.prod(data.x.shape[1:3]))))

    @tf.function(input_signature=[])  # type: ignore[untyped-decorator]
    def forward() -> Any:
        totals = _zero(model.output_shape[-1])
        for start in tf.range(0, count, size):
            images, labels = data.batch(tf.range(start, tf.minimum(start + size, count)))
            probabilities = model(images, training=False)
            totals = _add(totals, score(labels, probabilities, loss_of(labels, probabilities)))
        return tf.constant(1), totals

    return lambda: _read(*forward())


def _loss(recipe: Recipe, num_classes: int) -> Callable[[Any, Any], Any]:
    """Return the loss of each image, from labels and probabilities."""
    if recipe.loss == "sparse_categorical_crossentropy":
        return keras.losses.sparse_categorical_crossentropy  # type: ignore[no-any-return]

    def one_hot_loss(labels: Any, probabilities: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            tf.one_hot(labels, num_classes), probabilities, label_smoothing=recipe.label_smoothing
        )

    return one_hot_loss


def _scorer(num_classes: int) -> Callable[[Any, Any, Any], Any]:
    """Return what sums up one batch: loss, correct answers, predictions of each class."""

    def score(labels: Any, probabilities: Any, losses: Any) -> Any:
        said = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        correct = tf.reduce_sum(tf.cast(said == labels, tf.int32))
        predicted = tf.reduce_sum(tf.one_hot(said, num_classes, dtype=tf.int32), axis=0)
        return tf.reduce_sum(losses), correct, predicted

    return score


def _zero(num_classes: int) -> Any:
    return tf.constant(0.0), tf.constant(0), tf.zeros([num_classes], tf.int32)


def _add(totals: Any, more: Any) -> Any:
    return tuple(a + b for a, b in zip(totals, more, strict=True))


def _read(steps: Any, totals: Any) -> Totals:
    """Bring the sums back from the device."""
    loss, correct, predicted = totals
    return Totals(int(steps), float(loss), int(correct), predicted.numpy().astype(np.int64))
