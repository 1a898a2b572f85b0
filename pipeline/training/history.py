"""What a training tells while it runs and when it is over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    Attributes:
        epoch: counted from 1, through all phases.
        loss: mean over the epoch's training images, as they were seen (augmented, with dropout).
        learning_rate: of the epoch's last step.
        seconds: of wall-clock time, validation included.
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
        precision: in which the layers were computed.
        agreement: least cosine of a gradient in `bfloat16` with the one in `float32`, and of which
            array; None where that was not asked.
    """

    epochs: tuple[Epoch, ...]
    kept: Epoch
    precision: str = "float32"
    agreement: str | None = None
