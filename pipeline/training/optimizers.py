"""A recipe's optimizer and learning rate schedule, as objects of Keras."""

import math
from importlib import import_module
from itertools import pairwise
from typing import Any

import keras

from pipeline.models.optimizers import OPTIMIZERS_BY_NAME, OptimizerKind
from pipeline.models.recipes import OUTPUT_LAYER, Recipe, Schedule

# Iterations that make an update orthogonal. Keras does five, which train no better and cost a
# tenth of a step of a small network.
NEWTON_SCHULZ_STEPS = 3
_KERAS_NAMES = {"clip_norm": "global_clipnorm", "clip_value": "clipvalue"}


def optimizer_of(
    recipe: Recipe, total_steps: int, precision: str = "float32"
) -> keras.optimizers.Optimizer:
    """Return the optimizer; its learning rate schedule covers all steps of all phases.

    Args:
        recipe: names the optimizer and the schedule.
        total_steps: the number of steps of the whole training.
        precision: what large products may be computed in; the weights stay `float32`.
    """
    chosen = recipe.optimizer
    kind = OPTIMIZERS_BY_NAME[chosen.name]
    rate = rates_of(recipe, total_steps)
    settings = chosen.model_dump(exclude={"name", "learning_rate"}, exclude_defaults=True)
    settings = {_KERAS_NAMES.get(key, key): value for key, value in settings.items()}
    if kind.variant:
        settings["precision"] = precision
    optimizer = optimizer_class(kind)(learning_rate=rate, **settings)
    # Decay is meant to keep kernels small; a bias or a normalisation has no reason to shrink.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def optimizer_class(kind: OptimizerKind) -> Any:
    """Return the class that trains on Keras' backend: the fast twin, where there is one."""
    return getattr(import_module(kind.module(keras.backend.backend())), kind.keras_class)


class Muon(keras.optimizers.Muon):  # type: ignore[misc]
    """Keras' Muon, also for convolutions, whose kernels become matrices with a row per input.

    Each update of a kernel is made orthogonal, so that no direction is learned much faster than
    another. Vectors and the output layer are updated as AdamW does.
    """

    def __init__(self, *, precision: str, weight_decay: float = 0.004, **settings: Any) -> None:
        settings |= {"weight_decay": weight_decay, "adam_weight_decay": weight_decay}
        super().__init__(ns_steps=NEWTON_SCHULZ_STEPS, **settings)
        self.precision = precision

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) < 2 or OUTPUT_LAYER in variable.path

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the orthogonal matrix closest to an update of a kernel."""
        matrix = keras.ops.cast(keras.ops.reshape(x, (-1, x.shape[-1])), self.precision)
        update = super().zeropower_via_newtonschulz5(matrix, steps)
        return keras.ops.reshape(keras.ops.cast(update, "float32"), x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """Scale an orthogonal update to the step size of AdamW."""
        rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
        return x * (math.sqrt(max(rows, columns)) * self.rms_rate)


def rates_of(recipe: Recipe, total_steps: int) -> Any:
    """Return the learning rate of all phases: a number, or a Keras schedule over `total_steps`.

    A phase with a rate of its own begins the schedule of the recipe anew.
    """
    steps_per_epoch = total_steps // recipe.total_epochs
    begins, peaks, step = [0], [recipe.optimizer.learning_rate], 0
    for phase in recipe.phases:
        if phase.learning_rate:
            begins.append(step)
            peaks.append(phase.learning_rate)
        step += phase.epochs * steps_per_epoch
    lengths = [end - begin for begin, end in pairwise([*begins, total_steps])]
    parts = [schedule_of(recipe.schedule, *each) for each in zip(peaks, lengths, strict=True)]
    return parts[0] if len(parts) == 1 else InTurn(parts, begins)


@keras.saving.register_keras_serializable("pipeline")
class InTurn(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """One learning rate or schedule after the other.

    Attributes:
        parts: numbers or schedules.
        begins: the first step of each.
    """

    def __init__(self, parts: list[Any], begins: list[int]) -> None:
        self.parts, self.begins = parts, begins

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from 0."""
        rate: Any = None
        for part, begin in zip(self.parts, self.begins, strict=True):
            # A part that has not begun is not looked at, and must not divide by 0 before.
            since = keras.ops.maximum(keras.ops.cast(step, "float32") - begin, 0.0)
            own = part(since) if callable(part) else part
            rate = own if rate is None else keras.ops.where(step >= begin, own, rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild the schedule."""
        return {"parts": self.parts, "begins": self.begins}


def schedule_of(schedule: Schedule, rate: float, total_steps: int) -> Any:
    """Return a number, or a Keras schedule over `total_steps`, that peaks at `rate`."""
    if schedule.name == "constant":
        return rate
    if schedule.name == "inverse_time":
        return keras.optimizers.schedules.InverseTimeDecay(rate, 1, schedule.decay)
    return WarmupDecay(rate, total_steps, schedule.warmup, schedule.final, schedule.name)


@keras.saving.register_keras_serializable("pipeline")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A linear warmup over a fraction of the steps, then a decay to a fraction of the peak.

    Attributes:
        peak: the highest learning rate.
        warmup: the fraction of the steps that the warmup takes.
        final: the fraction of the peak that the decay ends at.
        shape: the shape of the decay: `triangular` is linear, `cosine` half a wave.
    """

    def __init__(
        self, peak: float, total_steps: int, warmup: float, final: float, shape: str
    ) -> None:
        self.peak, self.total_steps, self.shape = peak, total_steps, shape
        self.warmup, self.final = warmup, final

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from 0."""
        ops = keras.ops
        # The first step is part of the warmup already: a rate of 0 would waste it.
        step = ops.cast(step, "float32") + 1.0
        climb = max(self.warmup * self.total_steps, 1.0)
        done = ops.clip((step - climb) / max(self.total_steps - climb, 1.0), 0.0, 1.0)
        if self.shape == "cosine":
            done = (1.0 - ops.cos(math.pi * done)) / 2.0
        down = 1.0 - (1.0 - self.final) * done
        return self.peak * ops.where(step < climb, step / climb, down)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild the schedule."""
        names = ("peak", "total_steps", "warmup", "final", "shape")
        return {name: getattr(self, name) for name in names}
