"""compare: two models that were evaluated -> how they differ, as a page and on their runs."""

from pathlib import Path

from pipeline.artifacts.files import atomic
from pipeline.reports.comparing import page
from pipeline.reports.comparing.comparison import Comparison, compare_sides
from pipeline.reports.comparing.sides import load
from pipeline.tracking.runs import existing_run

FOLDER = Path("reports/compare")
FLIPS = 36


def compare(
    a: str, b: str, output: Path | None = None, flips: int = FLIPS, root: Path = Path()
) -> tuple[Comparison, Path]:
    """Compare two models and write the page.

    Args:
        a: `<name>@<alias>`, `<name>/<version>`, an MLflow run id or a `models/<dataset>/<model>`.
        b: the same of the one that is held against it.
        output: the page; by default `reports/compare/<a>-vs-<b>.html`.
        flips: how many images of each kind are shown.
        root: the folder whose `data/processed` may have the images.

    Returns:
        What was found, and where the page is.

    Raises:
        ParamsError: one of them is no model, or they are of different datasets.
        TrackingError: the store cannot be reached, or lacks one of them or its evaluation.
        ArtifactError: a file is missing or torn, or the page cannot be written.
    """
    found = compare_sides(load(a), load(b), root, flips)
    path = output or root / FOLDER / file_name(found)
    with atomic(path) as part:
        part.write_text(page.render(found), encoding="utf-8")
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
