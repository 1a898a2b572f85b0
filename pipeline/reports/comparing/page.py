"""The page that shows a comparison: one HTML file that loads nothing from anywhere."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.reports.comparing import charts
from pipeline.reports.comparing.comparison import Comparison
from pipeline.reports.comparing.findings import SHARES, Value, confusion_difference
from pipeline.reports.comparing.sides import Side
from pipeline.reports.comparing.wording import difference_text, label_text, points, value_text
from pipeline.tracking.addresses import mlflow_page

TEMPLATES = Path(__file__).parent.parent / "templates"
# Longer texts, say of params.yaml, are cut: the page is to be looked at.
LONGEST = 400


def render(comparison: Comparison) -> str:
    """Return the page; whatever comes from outside is escaped in it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "label": label_text,
        "value": value_text,
        "difference": difference_text,
        "share": _share,
        "points": points,
        "cut": _cut,
    }
    return environment.get_template("compare.html.jinja").render(
        comparison=comparison,
        sides=(("a", comparison.a), ("b", comparison.b)),
        link=_link,
        shares=charts.dots([row for row in comparison.metrics if row.name in SHARES]),
        others=[row for row in comparison.metrics if row.name not in SHARES],
        recalls=charts.dots(comparison.recalls[: charts.MOST_CLASSES]),
        matrix=_matrix(comparison),
        curves=charts.curves(comparison.a, comparison.b),
        frame=charts,
    )


def _matrix(comparison: Comparison) -> charts.Matrix | None:
    if comparison.paired is None:
        return None
    a, b = comparison.a.predictions, comparison.b.predictions
    return charts.matrix(confusion_difference(a, b), a.class_names)


def _link(side: Side) -> str | None:
    return mlflow_page(f"experiments/{side.experiment_id}/runs/{side.run_id}")


def _share(value: Value | None) -> str:
    """Return a share with its interval as text."""
    if value is None:
        return "not known"
    if value.interval is None:
        return f"{value.value:.2%}"
    low, high = value.interval
    return f"{value.value:.2%} ({100 * low:.1f} to {high:.1%})"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
