"""The state of a training: model, optimizer, history, and the best epoch so far."""

from dataclasses import dataclass, field
from typing import Literal

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

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    def add(self, epoch: Epoch, validation: Sums) -> None:
        """Add an epoch to the history; keep its weights if it is the best one, or the last."""
        self.epochs.append(epoch)
        if self.kept is None or self.keep == "last" or _is_better(epoch, self.kept):
            self.kept, self.predicted = epoch, validation.predicted
            for kept, trained in zip(self.model.weights, self.twin.weights, strict=True):
                kept.assign(trained)


def _is_better(epoch: Epoch, other: Epoch) -> bool:
    """Prefer accuracy on the validation split, then the lower loss there."""
    return (epoch.val_accuracy, -epoch.val_loss) > (other.val_accuracy, -other.val_loss)
