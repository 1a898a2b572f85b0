"""A recipe's loss, optimizer and learning rate schedule, as Keras computes them."""

import math
from collections.abc import Callable
from typing import Any

import keras

from pipeline.recipes import Optimizer, Recipe, Schedule

CLASSES = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}


def loss_of(recipe: Recipe, num_classes: int) -> Callable[[Any, Any], Any]:
    """Return the loss of each image, from labels and probabilities."""
    if recipe.loss == "sparse_categorical_crossentropy":
        return keras.losses.sparse_categorical_crossentropy  # type: ignore[no-any-return]

    def one_hot_loss(labels: Any, probabilities: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            keras.ops.one_hot(labels, num_classes),
            probabilities,
            label_smoothing=recipe.label_smoothing,
        )

    return one_hot_loss


def optimizer_of(recipe: Recipe, total_steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer, with the learning rate laid out over all steps of all phases."""
    said: Optimizer = recipe.optimizer
    rate = schedule_of(recipe.schedule, said.learning_rate, total_steps)
    settings = {
        "momentum": said.momentum or None,
        "nesterov": said.nesterov or None,
        "weight_decay": said.weight_decay,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    optimizer = getattr(_implementations(), CLASSES[said.name])(learning_rate=rate, **given)
    # Decay is meant to keep kernels small; a bias or a normalisation has no reason to shrink.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _implementations() -> Any:
    """Return the module whose classes are fastest on Keras' backend."""
    if keras.backend.backend() != "tensorflow":
        return keras.optimizers
    from pipeline import fused

    return fused


def schedule_of(schedule: Schedule, rate: float, total_steps: int) -> Any:
    """Return a number, or a Keras schedule over `total_steps`, that peaks at `rate`."""
    if schedule.name == "constant":
        return rate
    if schedule.name == "inverse_time":
        return keras.optimizers.schedules.InverseTimeDecay(rate, 1, schedule.decay)
    return WarmupDecay(rate, total_steps, schedule.warmup, schedule.final, schedule.name)


@keras.saving.register_keras_serializable("pipeline")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Straight up for `warmup` of the steps, then down to `final` of the peak.

    Attributes:
        peak: the highest learning rate.
        shape: of the way down: `triangular` is straight, `cosine` half a wave.
    """

    def __init__(
        self, peak: float, total_steps: int, warmup: float, final: float, shape: str
    ) -> None:
        self.peak, self.total_steps, self.shape = peak, total_steps, shape
        self.warmup, self.final = warmup, final

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from 0."""
        ops = keras.ops
        # The first step is already one part of the climb: a rate of 0 would waste it.
        step = ops.cast(step, "float32") + 1.0
        climb = max(self.warmup * self.total_steps, 1.0)
        done = ops.clip((step - climb) / max(self.total_steps - climb, 1.0), 0.0, 1.0)
        if self.shape == "cosine":
            done = (1.0 - ops.cos(math.pi * done)) / 2.0
        down = 1.0 - (1.0 - self.final) * done
        return self.peak * ops.where(step < climb, step / climb, down)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the schedule."""
        names = ("peak", "total_steps", "warmup", "final", "shape")
        return {name: getattr(self, name) for name in names}
