"""The metrics of a model, as a list: `evaluate` writes them, and all that show or judge read it.

MLflow, `dvc metrics`, `pipeline compare`, model cards and the gate follow this list. To add a
metric, add an entry: an `ImageMetric` where each image is a hit or not, a `SplitMetric` where it
takes all predictions to tell, a `SliceMetric` or a `CorruptionMetric` for what those reports say, a
`FileMetric` for what is measured on the model's files, and a `TrainingMetric` for what `run.json`
knows.
"""

from pipeline.evaluation.measures import calibration_error, class_mean, cross_entropy, in_top
from pipeline.evaluation.metric import (
    CorruptionMetric,
    FileMetric,
    Floor,
    ImageMetric,
    SliceMetric,
    SplitMetric,
    TrainingMetric,
)
from pipeline.evaluation.predictions import Predictions

# In the order in which they are shown. Names are those of stored runs and passports, which is why
# LiteRT's begin with `portable_`.
METRICS: tuple[
    ImageMetric | SplitMetric | SliceMetric | CorruptionMetric | FileMetric | TrainingMetric, ...
] = (
    ImageMetric(
        name="accuracy",
        label="accuracy",
        unit="share",
        better="higher",
        floor=Floor("accuracy"),
        hits=lambda predictions: predictions.right,
    ),
    ImageMetric(
        name="top_2_accuracy",
        label="top-2 accuracy",
        unit="share",
        better="higher",
        hits=lambda predictions: in_top(predictions, 2),
        num_classes=range(2, 4),
    ),
    ImageMetric(
        name="top_3_accuracy",
        label="top-3 accuracy",
        unit="share",
        better="higher",
        hits=lambda predictions: in_top(predictions, 3),
        num_classes=range(4, 1_000_000),
    ),
    SplitMetric(
        name="precision",
        label="precision, mean of classes",
        unit="share",
        better="higher",
        score=lambda predictions: class_mean(predictions, "precision"),
    ),
    SplitMetric(
        name="recall",
        label="recall, mean of classes",
        unit="share",
        better="higher",
        score=lambda predictions: class_mean(predictions, "recall"),
    ),
    SplitMetric(
        name="recall_lowest",
        label="recall of the worst class",
        unit="share",
        better="higher",
        floor=Floor("recall"),
        score=lambda predictions: min(predictions.recalls().values()),
    ),
    SplitMetric(
        name="f1",
        label="F1, mean of classes",
        unit="share",
        better="higher",
        score=lambda predictions: class_mean(predictions, "f1"),
    ),
    SplitMetric(
        name="loss",
        label="cross-entropy",
        unit="nats",
        better="lower",
        score=cross_entropy,
    ),
    SplitMetric(
        name="calibration_error",
        label="calibration error",
        unit="probability",
        better="lower",
        floor=Floor("calibration_error"),
        score=calibration_error,
    ),
    SliceMetric(
        name="slice_accuracy_lowest",
        label="accuracy on the worst slice",
        unit="share",
        better="higher",
        floor=Floor("slice_accuracy"),
        score=lambda slices: slices.worst.accuracy if slices.worst else None,
    ),
    CorruptionMetric(
        name="corruption_accuracy",
        label="accuracy on corrupted images",
        unit="share",
        better="higher",
        floor=Floor("corruption_accuracy"),
        score=lambda corrupted: corrupted.accuracy,
    ),
    SplitMetric(
        name="images",
        label="test images",
        unit="count",
        score=lambda predictions: len(predictions.y),
    ),
    TrainingMetric(
        name="val_accuracy",
        label="validation accuracy",
        unit="share",
        better="higher",
    ),
    TrainingMetric(
        name="val_loss",
        label="validation cross-entropy",
        unit="nats",
        better="lower",
    ),
    FileMetric(
        name="latency_p50_ms",
        label="latency, median",
        unit="ms",
        better="lower",
        measure=lambda files: files.keras.p50_ms,
    ),
    FileMetric(
        name="latency_p95_ms",
        label="latency, 95th percentile",
        unit="ms",
        better="lower",
        floor=Floor("latency_p95_ms"),
        measure=lambda files: files.keras.p95_ms,
    ),
    FileMetric(
        name="images_per_second",
        label="throughput",
        unit="images/s",
        better="higher",
        measure=lambda files: files.keras.images_per_second,
    ),
    FileMetric(
        name="portable_latency_p50_ms",
        label="LiteRT: latency, median",
        unit="ms",
        better="lower",
        measure=lambda files: files.litert.p50_ms,
    ),
    FileMetric(
        name="portable_latency_p95_ms",
        label="LiteRT: latency, 95th percentile",
        unit="ms",
        better="lower",
        measure=lambda files: files.litert.p95_ms,
    ),
    FileMetric(
        name="portable_images_per_second",
        label="LiteRT: throughput",
        unit="images/s",
        better="higher",
        measure=lambda files: files.litert.images_per_second,
    ),
    FileMetric(
        name="portable_difference",
        label="LiteRT: difference from Keras",
        unit="probability",
        better="lower",
        measure=lambda files: files.difference,
    ),
    FileMetric(
        name="portable_size_bytes",
        label="LiteRT: file size",
        unit="bytes",
        better="lower",
        measure=lambda files: files.litert_bytes,
    ),
    TrainingMetric(
        name="parameters",
        label="parameters",
        unit="count",
        better="lower",
    ),
    FileMetric(
        name="size_bytes",
        label="file size",
        unit="bytes",
        better="lower",
        floor=Floor("size_mb", units=1e6),
        measure=lambda files: files.keras_bytes,
    ),
    TrainingMetric(
        name="training_seconds",
        label="training time",
        unit="s",
        better="lower",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}
# Those of which the gate may ask something, by the key below `promotion.floors`.
FLOORS = {metric.floor.key: metric for metric in METRICS if metric.floor}


def scores(predictions: Predictions) -> dict[str, float]:
    """Return the metrics that follow from predictions, by name."""
    num_classes = len(predictions.class_names)
    return {
        metric.name: metric.score(predictions)
        for metric in METRICS
        if isinstance(metric, SplitMetric)
        or (isinstance(metric, ImageMetric) and num_classes in metric.num_classes)
    }
