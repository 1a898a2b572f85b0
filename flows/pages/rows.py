"""What a run of `train` tells other flows about each of its models."""

from pydantic import ConfigDict

from pipeline.artifacts.record import Frozen


class ModelRow(Frozen):
    """A trained model; a value that is not known yet is None.

    Attributes:
        run_id: the id of its MLflow run.
        cached: whether DVC had it already.
    """

    # Written by a worker, which may be of a newer release.
    model_config = ConfigDict(extra="ignore")

    dataset: str
    model: str
    seed: int
    run_id: str
    val_accuracy: float
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    epochs: int
    training_seconds: float
    cached: bool
    device: str
