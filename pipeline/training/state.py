"""The state of a training: model, optimizer, history, and the best epoch so far."""

from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.training.backends.sums import Sums
from pipeline.training.history import Epoch


@dataclass
class TrainingState:
    """What a training has reached. The random state is the seed and the number of the epoch.

    All fields are in a checkpoint: `checkpoints.snapshot` says of which types they may be.

    Attributes:
        model: the model that gets the weights of the epoch that is kept.
        twin: the model that is trained in its place.
        optimizer: built for the twin; its state is kept through all phases.
        keep: the weights of the epoch that is `best` on the validation split, or the `last`.
        precision: the type that the twin's layers are computed in.
        epochs: the history so far.
        kept: the epoch whose weights the model has; None before the first one.
        predicted: how often that epoch predicted each class on the validation split.
        averages: the moving averages of the twin's weights, which are kept in place of them; empty
            if the recipe has no `ema`.
        phase: the number of the phase, from 0.
        epochs_before: the number of epochs before this phase.
    """

    model: keras.Model
    twin: keras.Model
    optimizer: keras.optimizers.Optimizer
    seed: int
    keep: Literal["best", "last"]
    precision: str = "float32"
    epochs: list[Epoch] = field(default_factory=list)
    kept: Epoch | None = None
    predicted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    averages: list[Any] = field(default_factory=list)
    phase: int = 0
    epochs_before: int = 0

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    def add(self, epoch: Epoch, validation: Sums) -> None:
        """Add an epoch to the history; keep its weights if it is the best one, or the last."""
        self.epochs.append(epoch)
        if self.kept is None or self.keep == "last" or _is_better(epoch, self.kept):
            self.kept, self.predicted = epoch, validation.predicted
            reached = self.averages or self.twin.weights
            for kept, weight in zip(self.model.weights, reached, strict=True):
                kept.assign(weight)

    @property
    def epochs_of_phase(self) -> int:
        """The number of epochs that this phase has had."""
        return len(self.epochs) - self.epochs_before

    def phase_ends(self, epochs: int, patience: int | None) -> bool:
        """Whether this phase has had all its epochs, or none was better for too long."""
        best = self.kept.epoch if self.kept else 0
        waited = len(self.epochs) - max(best, self.epochs_before)
        return self.epochs_of_phase >= epochs or (patience is not None and waited >= patience)

    def begin_phase(self, step: int) -> None:
        """Go on to the next phase, with the learning rate of the step at which it was planned."""
        self.phase, self.epochs_before = self.phase + 1, len(self.epochs)
        if int(self.optimizer.iterations) < step:
            self.optimizer.iterations.assign(step)


def _is_better(epoch: Epoch, other: Epoch) -> bool:
    """Prefer accuracy on the validation split, then the lower loss there."""
    return (epoch.val_accuracy, -epoch.val_loss) > (other.val_accuracy, -other.val_loss)
