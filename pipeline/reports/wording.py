"""Numbers and passports in words: metrics with units, a recipe in short, a model's limits.

Every sentence states something that was measured or is in the passport.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.evaluation.measures import Confused
from pipeline.evaluation.metric import Unit
from pipeline.evaluation.metrics import BY_NAME
from pipeline.guarantee.guarantee import Guarantee
from pipeline.models.layers import layer_kind
from pipeline.models.recipes import Recipe
from pipeline.registry.passport import Passport

# With so few images, Wilson's interval of a recall of 90% is some 20 points wide.
_FEW = 30
_MOST_NAMES = 10
_SPLITS = ("train", "val", "test")
# How a value is written.
UNITS: dict[Unit, Callable[[float], str]] = {
    "share": "{:.2%}".format,
    "probability": "{:.4g}".format,
    "nats": "{:.4g}".format,
    "count": "{:,.0f}".format,
    "ms": "{:.3f} ms".format,
    "images/s": "{:,.0f} images/s".format,
    "bytes": lambda value: f"{value / 1e6:,.3f} MB",
    "s": "{:,.1f} s".format,
}


class MetricRow(NamedTuple):
    """A metric as people read it; `interval` is empty where there is none."""

    label: str
    value: str
    interval: str


def metric_rows(metrics: Mapping[str, float]) -> list[MetricRow]:
    """Return metrics as rows with their intervals; those that are not in METRICS come last.

    Args:
        metrics: numbers by name; `<name>_low` and `<name>_high` are the 95% interval of `<name>`.
    """
    bounds = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    order = [name for name in BY_NAME if name in metrics]
    order += [name for name in sorted(metrics) if name not in BY_NAME and name not in bounds]
    rows = []
    for name in order:
        ends = [metrics[key] for end in ("low", "high") if (key := f"{name}_{end}") in metrics]
        interval = interval_text(name, (ends[0], ends[1])) if len(ends) == 2 else ""
        rows.append(MetricRow(label(name), value_text(name, metrics[name]), interval))
    return rows


def forgotten_text(count: int) -> str:
    """Say that a version was made with images that are to be forgotten; nothing where not."""
    images = "an image that is" if count == 1 else f"{count:,} images that are"
    return f"made with {images} kept out of the data since" if count else ""


def guarantee_sentences(promise: Guarantee) -> tuple[str, ...]:
    """Say what a version guarantees, on which images, and when that does not hold."""
    percent = f"{100 * promise.error:.3g}%"
    return (
        f"It {promise.sentence}.",
        f"That is {percent} of all images that it is asked about, not of those that it answers: of "
        f"the {promise.answered:,} calibration images that it answers it is wrong on "
        f"{promise.wrong:,}.",
        f"It says unknown, and names the nearest classes, where the best class has a probability "
        f"of {promise.above:.4g} or less ({promise.not_sure:,} of the calibration images), or "
        f"where the image is unlike the {promise.training_images:,} training images that it is "
        f"compared with ({promise.unlike:,} of them).",
        "It was calibrated on test images, which neither training nor the choice of the epoch has "
        "used. The metrics above are measured with every image answered.",
        "The guarantee does not hold for images that are not like those: another camera, other "
        "classes, other shares of the classes. Some of them are noticed as unlike the training "
        "images, not all.",
    )


def label(name: str) -> str:
    """Return the label of a metric; one that is not in METRICS has only its name."""
    return BY_NAME[name].label if name in BY_NAME else name


def value_text(name: str, value: float) -> str:
    """Write the value of a metric with its unit."""
    if name in BY_NAME:
        return UNITS[BY_NAME[name].unit](value)
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


def interval_text(name: str, interval: tuple[float, float]) -> str:
    """Write the interval of a metric."""
    low, high = interval
    if name in BY_NAME and BY_NAME[name].unit == "share":
        return f"{100 * low:.1f} to {high:.1%}"
    return f"{low:.3g} to {high:.3g}"


def in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the number of images of each split, in the order train, val, test."""
    return sorted(counts.items(), key=lambda item: _SPLITS.index(item[0]))


def short(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as params.yaml would have it, without keys that are left at their default."""
    layers = [
        {kind: getattr(layer, kind), **layer.model_dump(mode="json", exclude_defaults=True)}
        for layer in recipe.layers
        if (kind := layer_kind(layer))
    ]
    return recipe.model_dump(mode="json", exclude_defaults=True) | {"layers": layers}


def limits(passport: Passport, confused: Sequence[Confused] = ()) -> tuple[str, ...]:
    """Return what a user should know before relying on a model, as sentences.

    Args:
        passport: the passport of the model.
        confused: the most frequent mistakes, where they are known.
    """
    height, width, channels = passport.data.image_shape
    colour = "" if channels == 3 else ", and its colours are dropped"
    return (
        *_by_class(passport.classes),
        *(
            f"It classifies {row.share:.1%} of the test images of {row.actual} as {row.predicted}."
            for row in confused[:3]
        ),
        *_worst_slice(passport),
        *_calibration(passport.metrics),
        f"It sees {height}x{width} pixels in {'colour' if channels == 3 else 'gray'}. Any other "
        f"image is resized to that, its aspect ratio is not kept{colour}.",
        _every_image(passport),
        *(
            f"The validation of its data warned: {row.message}."
            for row in passport.validation.results
            if not row.passed
        ),
    )


def _every_image(passport: Passport) -> str:
    count = passport.data.num_classes
    if passport.guarantee is not None:
        return (
            f"It knows {count} classes. An image that shows none of them is often answered "
            "unknown, but not always."
        )
    return (
        f"It assigns one of its {count} classes to every image, even to one that shows none of "
        "them."
    )


def _by_class(classes: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Name the classes with the lowest recall, and those with few or no test images."""
    seen = {name: row for name, row in classes.items() if row["support"] > 0}
    missed = sorted(
        (name for name, row in seen.items() if row["recall"] < 1), key=lambda n: seen[n]["recall"]
    )
    few = [name for name, row in seen.items() if row["support"] < _FEW]
    none = [name for name in classes if name not in seen]
    worst = [f"{n} ({seen[n]['recall']:.1%})" for n in missed[:3]]
    sentences = {
        "The classes with the lowest recall": worst,
        f"Fewer than {_FEW} test images, so their numbers are rough": [
            f"{name} ({seen[name]['support']:.0f})" for name in few
        ],
        "No test image, so nothing was measured": none,
    }
    return tuple(f"{text}: {_listed(names)}." for text, names in sentences.items() if names)


def _worst_slice(passport: Passport) -> tuple[str, ...]:
    if not passport.slices:
        return ()
    worst, name = passport.slices[0], "slice_accuracy_lowest"
    ends = (passport.metrics[f"{name}_low"], passport.metrics[f"{name}_high"])
    return (
        f"Of {len(passport.slices)} slices of the test split, it is worst on {worst} "
        f"({worst.images:,} images): {worst.accuracy:.1%}; the worst of so many is "
        f"{interval_text(name, ends)} with 95% confidence.",
    )


def _calibration(metrics: Mapping[str, float]) -> tuple[str, ...]:
    error = metrics.get("calibration_error")
    if error is None:
        return ()
    return (
        f"On the test split, its confidence and its accuracy differ by {100 * error:.1f} "
        "percentage points on average.",
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
