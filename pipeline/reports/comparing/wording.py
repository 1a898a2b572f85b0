"""How the numbers of two models are written, on the page and in the terminal alike."""

from pipeline.evaluation.metrics import BY_NAME
from pipeline.reports import wording
from pipeline.reports.comparing.findings import ComparedMetric, Value

DIRECTIONS = {"higher": " ↑", "lower": " ↓", None: ""}


def label_text(name: str) -> str:
    """Name a metric, with an arrow in the direction that is better."""
    return wording.label(name) + (DIRECTIONS[BY_NAME[name].better] if name in BY_NAME else "")


def value_text(value: Value | None, name: str) -> str:
    """Write the value of a metric with its unit."""
    return "not known" if value is None else wording.value_text(name, value.value)


def interval_text(value: Value | None, name: str) -> str:
    """Write the interval of a metric; nothing where it has none."""
    return wording.interval_text(name, value.interval) if value and value.interval else ""


def difference_text(metric: ComparedMetric) -> str:
    """Write B - A: shares in percentage points, losses as they are, the rest in percent of A."""
    difference = metric.difference
    if difference is None or metric.a is None:
        return ""
    unit = BY_NAME[metric.name].unit
    if unit == "share":
        return f"{points(difference)} points"
    if unit in ("nats", "probability"):
        return f"{difference:+.4f}"
    return f"{difference / metric.a.value:+.0%}" if metric.a.value else ""


def points(share: float) -> str:
    """Write a difference of shares in percentage points."""
    return f"{100 * share:+.2f}"
