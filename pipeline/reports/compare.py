"""compare: two evaluated models -> how they differ: a page, stored with both runs."""

from pathlib import Path

from pipeline.artifacts.files import atomic
from pipeline.reports.comparing import figures
from pipeline.reports.comparing.comparison import Comparison, compare_sides
from pipeline.reports.comparing.side_by_side import (
    SHARES,
    Value,
    confusion_difference,
    difference_text,
    label_text,
    points,
    value_text,
)
from pipeline.reports.comparing.sides import Side, load
from pipeline.reports.pages import html_templates
from pipeline.reports.wording import forgotten_text
from pipeline.tracking.addresses import mlflow_page
from pipeline.tracking.runs import existing_run

FOLDER = Path("reports/compare")
FLIPS = 36
# Longer texts, such as params.yaml, are cut on the page.
LONGEST = 400


def compare(
    a: str, b: str, output: Path | None = None, flips: int = FLIPS, root: Path = Path()
) -> tuple[Comparison, Path]:
    """Compare two models and write the page.

    Args:
        a: `<name>@<alias>`, `<name>/<version>`, an MLflow run id or a `models/<dataset>/<model>`.
        b: the model that is compared with it, named likewise.
        output: the page; by default `reports/compare/<a>-vs-<b>.html`.
        flips: how many images of each kind are shown.
        root: the folder whose `data/processed` may have the images.

    Returns:
        The comparison, and the path of the page.

    Raises:
        ParamsError: one of them names no model, or they are of different datasets.
        TrackingError: the store cannot be reached, or lacks one of them or its evaluation.
        ArtifactError: a file is missing or torn, or the page cannot be written.
    """
    found = compare_sides(load(a), load(b), root, flips)
    path = output or root / FOLDER / file_name(found)
    with atomic(path) as part:
        part.write_text(page(found), encoding="utf-8")
    return found, path


def file_name(comparison: Comparison) -> str:
    """Return the name of the page."""
    return f"{comparison.a.slug}-vs-{comparison.b.slug}.html"


def track(comparison: Comparison, path: Path) -> None:
    """Store the page with both runs, as `comparisons/<a>-vs-<b>.html`.

    Raises:
        TrackingError: the store cannot be reached, or lacks a run.
    """
    text = path.read_text(encoding="utf-8")
    for side in {side.run_id: side for side in (comparison.a, comparison.b)}.values():
        run = existing_run(side.run_id, f"dvc repro --force train@{side.model}")
        run.log_text(text, f"comparisons/{file_name(comparison)}")


def page(comparison: Comparison) -> str:
    """Return the page: one HTML file that loads nothing, in which all values are escaped."""
    environment = html_templates()
    environment.filters |= {
        "label": label_text,
        "value": value_text,
        "difference": difference_text,
        "share": _share,
        "points": points,
        "cut": _cut,
        "forgotten": forgotten_text,
    }
    return environment.get_template("compare.html.jinja").render(
        comparison=comparison,
        sides=(("a", comparison.a), ("b", comparison.b)),
        link=_link,
        shares=figures.dots([row for row in comparison.metrics if row.name in SHARES]),
        others=[row for row in comparison.metrics if row.name not in SHARES],
        recalls=figures.dots(comparison.recalls[: figures.MOST_CLASSES]),
        matrix=_matrix(comparison),
        curves=figures.curves(comparison.a, comparison.b),
        frame=figures,
    )


def _matrix(comparison: Comparison) -> figures.Matrix | None:
    if comparison.compared is None:
        return None
    a, b = comparison.compared
    return figures.matrix(confusion_difference(a, b), a.class_names)


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
