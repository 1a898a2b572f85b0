"""How numbers are written, on the page and in the terminal alike."""

from pipeline.reports.comparing.findings import SHARES, Metric, Value

METRIC_NAMES = {
    "accuracy": "accuracy",
    "top_2_accuracy": "top 2 accuracy",
    "top_3_accuracy": "top 3 accuracy",
    "precision": "precision, mean of classes",
    "recall": "recall, mean of classes",
    "f1": "F1, mean of classes",
    "recall_lowest": "recall, lowest of classes",
    "loss": "loss",
    "calibration_error": "calibration error",
    "val_accuracy": "accuracy on validation",
    "val_loss": "loss on validation",
    "latency_p50_ms": "latency, median",
    "latency_p95_ms": "latency, 95% below",
    "images_per_second": "images per second",
    "parameters": "parameters",
    "size_bytes": "size of the file",
    "training_seconds": "training",
}
_PERCENT = {*SHARES, "val_accuracy"}


def value_text(value: Value | None, name: str) -> str:
    """Write the value of a metric with its unit."""
    return "not known" if value is None else _written(value.value, name)


def interval_text(value: Value | None, name: str) -> str:
    """Write the interval of a metric; nothing where it has none."""
    if value is None or value.interval is None:
        return ""
    low, high = value.interval
    if name in _PERCENT:
        return f"{100 * low:.1f} to {high:.1%}"
    return f"{low:.3g} to {high:.3g}"


def difference_text(metric: Metric) -> str:
    """Write B - A: shares in percentage points, costs in percent of A."""
    difference = metric.difference
    if difference is None or metric.a is None:
        return ""
    if metric.name in _PERCENT:
        return f"{points(difference)} points"
    if metric.name in ("loss", "val_loss", "calibration_error"):
        return f"{difference:+.4f}"
    return f"{difference / metric.a.value:+.0%}" if metric.a.value else ""


def points(share: float) -> str:
    """Write a difference of shares in percentage points."""
    return f"{100 * share:+.2f}"


def _written(value: float, name: str) -> str:
    if name in _PERCENT:
        return f"{value:.2%}"
    forms = {
        "latency_p50_ms": f"{value:.2f} ms",
        "latency_p95_ms": f"{value:.2f} ms",
        "images_per_second": f"{value:,.0f}",
        "parameters": f"{value:,.0f}",
        "size_bytes": f"{value / 1e6:.2f} MB",
        "training_seconds": f"{value:,.1f} s",
    }
    return forms.get(name, f"{value:.4f}")
