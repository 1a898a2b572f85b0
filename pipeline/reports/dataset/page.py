"""data: a dataset's images, checks and changes -> a page with pictures, stored with its runs."""

from pathlib import Path

from pipeline.artifacts.files import atomic
from pipeline.reports.dataset.facts import Facts, gather, page_path
from pipeline.reports.dataset.pictures import Pictures, pictures
from pipeline.reports.pages import html_templates
from pipeline.tracking.runs import find_run
from pipeline.workspace import Workspace

TEMPLATE = "dataset.html.jinja"


def tell(workspace: Workspace, output: Path | None = None) -> tuple[Facts, Path]:
    """Gather what is known of a dataset and write its page.

    Args:
        workspace: of the dataset.
        output: the page; by default `reports/<dataset>/dataset.html`.

    Raises:
        ArtifactError: the dataset has not been ingested and validated, or the page cannot be
            written.
        TrackingError: the MLflow store cannot be reached.
    """
    facts = gather(workspace)
    path = output or page_path(facts, workspace.root)
    text = render(facts, pictures(workspace.raw, facts))
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return facts, path


def render(facts: Facts, shown: Pictures) -> str:
    """Return the page: one HTML file that loads nothing, in which all values are escaped."""
    return (
        html_templates()
        .get_template(TEMPLATE)
        .render(
            facts=facts,
            shown=shown,
            largest=max((sum(row.values()) for row in facts.images.values()), default=1),
        )
    )


def track(facts: Facts, path: Path) -> list[int]:
    """Store the page with the runs of the versions that know exactly these images.

    Returns:
        These versions.

    Raises:
        TrackingError: the store cannot be reached.
    """
    same = [change for change in facts.changes if (change.added, change.removed) == (0, 0)]
    stored = []
    for change in same:
        if run := find_run(change.run_id):
            run.log_text(path.read_text(encoding="utf-8"), "dataset/dataset.html")
            stored.append(change.version)
    return stored
