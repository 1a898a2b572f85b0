"""What a passport says in words: metrics as rows, a recipe in short, what limits a model.

Every sentence is about something that was measured or is in the passport.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.evaluation.metrics import Confused
from pipeline.models.layers import layer_kind
from pipeline.models.recipes import Recipe
from pipeline.registry.passport import Passport

# In the order in which they are shown; what is not here follows under its own name.
_LABELS = {
    "accuracy": "accuracy",
    "top_2_accuracy": "right class among the first 2",
    "top_3_accuracy": "right class among the first 3",
    "precision": "precision, mean of the classes",
    "recall": "recall, mean of the classes",
    "recall_lowest": "recall of the worst class",
    "f1": "F1, mean of the classes",
    "loss": "cross-entropy",
    "calibration_error": "calibration error",
    "images": "test images",
    "val_accuracy": "accuracy on the validation split",
    "val_loss": "cross-entropy on the validation split",
    "latency_p50_ms": "milliseconds for one image, median",
    "latency_p95_ms": "milliseconds for one image, 95th percentile",
    "images_per_second": "images per second, in batches",
    "portable_latency_p50_ms": "LiteRT: milliseconds for one image, median",
    "portable_latency_p95_ms": "LiteRT: milliseconds for one image, 95th percentile",
    "portable_images_per_second": "LiteRT: images per second, in batches",
    "portable_difference": "LiteRT: largest difference of a probability from Keras'",
    "portable_size_bytes": "LiteRT: bytes of the model file",
    "parameters": "parameters",
    "size_bytes": "bytes of the model file",
    "training_seconds": "seconds of training",
}
_SHARES = ("accuracy", "precision", "recall", "recall_lowest", "f1")
# Wilson's interval of a recall of 90% is then some 20 points wide.
_FEW = 30
_MOST_NAMES = 10
_SPLITS = ("train", "val", "test")


class Measured(NamedTuple):
    """A metric as people read it; `interval` is empty where there is none."""

    label: str
    value: str
    interval: str


def measured(metrics: Mapping[str, float]) -> list[Measured]:
    """Return metrics as rows, each beside its interval.

    Args:
        metrics: numbers by name; `<name>_low` and `<name>_high` are the 95% interval of `<name>`.
    """
    bounds = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    order = [name for name in _LABELS if name in metrics]
    order += [name for name in sorted(metrics) if name not in _LABELS and name not in bounds]
    rows = []
    for name in order:
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        both = low is not None and high is not None
        interval = f"{_number(name, low)} to {_number(name, high)}" if both else ""
        rows.append(Measured(_LABELS.get(name, name), _number(name, metrics[name]), interval))
    return rows


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name.endswith(_SHARES):
        return f"{value:.2%}"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


def in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the images of each split in the order in which they are used."""
    return sorted(counts.items(), key=lambda item: _SPLITS.index(item[0]))


def short(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as one would write it in params.yaml: without what is left at its default."""
    layers = [
        {kind: getattr(layer, kind), **layer.model_dump(mode="json", exclude_defaults=True)}
        for layer in recipe.layers
        if (kind := layer_kind(layer))
    ]
    return recipe.model_dump(mode="json", exclude_defaults=True) | {"layers": layers}


def limits(passport: Passport, confused: Sequence[Confused] = ()) -> tuple[str, ...]:
    """Say what a user should know before they rely on a model, as plain sentences.

    Args:
        passport: of the model.
        confused: the most frequent mistakes, where they are known.
    """
    height, width, channels = passport.data.image_shape
    colour = "" if channels == 3 else ", and its colours are dropped"
    return (
        *_by_class(passport.classes),
        *(
            f"It takes {row.actual} for {row.predicted} in {row.share:.1%} of the test images "
            f"of {row.actual}."
            for row in confused[:3]
        ),
        *_calibration(passport.metrics),
        f"It sees {height}x{width} pixels in {'colour' if channels == 3 else 'gray'}. Any other "
        f"image is resized to that, its aspect ratio is not kept{colour}.",
        f"It answers every image with one of its {passport.data.num_classes} classes, also one "
        "that shows none of them.",
        *(
            f"The validation of its data warned: {row.message}."
            for row in passport.validation.results
            if not row.passed
        ),
    )


def _by_class(classes: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Name the classes that are found least often, and those of which little is known."""
    seen = {name: row for name, row in classes.items() if row["support"] > 0}
    missed = sorted(
        (name for name, row in seen.items() if row["recall"] < 1), key=lambda n: seen[n]["recall"]
    )
    few = [name for name, row in seen.items() if row["support"] < _FEW]
    none = [name for name in classes if name not in seen]
    worst = [f"{n} ({seen[n]['recall']:.1%} of its images)" for n in missed[:3]]
    sentences = {
        "The classes that it finds least often": worst,
        f"Fewer than {_FEW} test images, so their numbers are rough": [
            f"{name} ({seen[name]['support']:.0f})" for name in few
        ],
        "No test image, so nothing was measured": none,
    }
    return tuple(f"{text}: {_listed(names)}." for text, names in sentences.items() if names)


def _calibration(metrics: Mapping[str, float]) -> tuple[str, ...]:
    error = metrics.get("calibration_error")
    if error is None:
        return ()
    return (
        f"On the test split its confidence is {100 * error:.1f} percentage points away from its "
        "accuracy, on average.",
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
