"""What a metric is: a number with a label, a unit and a better direction, and how it is found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.artifacts.models import RunInfo
from pipeline.evaluation.latency import Latency
from pipeline.evaluation.predictions import Hits, Predictions
from pipeline.evaluation.robustness.corrupted import Corrupted
from pipeline.evaluation.robustness.slices import Slices

# `probability`: a difference between probabilities; `nats`: a cross-entropy.
Unit = Literal["share", "probability", "nats", "count", "ms", "images/s", "bytes", "s"]
Better = Literal["higher", "lower"] | None


@dataclass(frozen=True)
class Floor:
    """What the gate may ask of a metric.

    Attributes:
        key: below `promotion.floors` in params.yaml.
        units: how many units of the metric make one there.
    """

    key: str
    units: float = 1


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that `evaluate` writes.

    Attributes:
        name: in `metrics.json`, MLflow and passports.
        label: the name that people read; the unit stands beside the value.
        better: the direction that is better; None where neither is.
        floor: what the gate may ask, where it may; the most that is allowed if lower is better.
    """

    name: str
    label: str
    unit: Unit
    better: Better = None
    floor: Floor | None = None


@dataclass(frozen=True, kw_only=True)
class ImageMetric(Metric):
    """The share of test images that are hits.

    Attributes:
        hits: says of each image whether it is one.
        num_classes: the numbers of classes for which it is computed.
    """

    hits: Callable[[Predictions], Hits]
    num_classes: range = range(2, 1_000_000)

    def score(self, predictions: Predictions) -> float:
        """Return the share of hits."""
        return float(self.hits(predictions).mean())


@dataclass(frozen=True, kw_only=True)
class SplitMetric(Metric):
    """A number that takes the whole test split to compute."""

    score: Callable[[Predictions], float]


@dataclass(frozen=True, kw_only=True)
class SliceMetric(Metric):
    """A number of the slices of the test split; None where no slice has enough images."""

    score: Callable[[Slices], float | None]


@dataclass(frozen=True, kw_only=True)
class CorruptionMetric(Metric):
    """A number that takes predictions of corrupted test images."""

    score: Callable[[Corrupted], float]


@dataclass(frozen=True)
class ModelFiles:
    """The Keras file of a model and the LiteRT file made from it.

    Attributes:
        difference: the largest one between a probability of Keras and that of LiteRT.
    """

    keras: Latency
    keras_bytes: int
    litert: Latency
    litert_bytes: int
    difference: float


@dataclass(frozen=True, kw_only=True)
class FileMetric(Metric):
    """A number measured on the files of the model."""

    measure: Callable[[ModelFiles], float]


@dataclass(frozen=True, kw_only=True)
class TrainingMetric(Metric):
    """A number of `run.json`, under the same name: the training has logged it already."""

    def read(self, run: RunInfo) -> float:
        """Return the number."""
        number: float = getattr(run, self.name)
        return number
