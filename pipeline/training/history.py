"""What a training reports while it runs and at the end: epochs, progress, history."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    Attributes:
        epoch: counted from 1, through all phases.
        loss: the mean over the epoch's training images, with augmentation and dropout.
        learning_rate: the rate of the epoch's last step; 0 where the optimizer has none.
        seconds: wall-clock time, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where training stands within an epoch; loss and accuracy are means of the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_left: float


@dataclass(frozen=True)
class History:
    """All epochs, and the one whose weights the model has now.

    Attributes:
        kept: the epoch whose weights the model has.
        precision: the type that the layers were computed in.
        agreement: the smallest cosine between a gradient in `bfloat16` and in `float32`, and the
            array it belongs to; None if `bfloat16` was not considered.
        stopped: whether a phase ended before its last epoch, as none was better for too long.
        features_seconds: how long it took to have the features, where the training was on those.
        strengths: of logistic regression, the L2 penalty that each row was fitted with.
    """

    epochs: tuple[Epoch, ...]
    kept: Epoch
    precision: str = "float32"
    agreement: str | None = None
    stopped: bool = False
    features_seconds: float = 0.0
    strengths: tuple[float, ...] = ()
