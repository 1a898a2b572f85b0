"""What a run shows in the Prefect UI: progress, charts, reports, and links to MLflow."""

import base64
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.pages.rows import ModelRow
from pipeline.artifacts.models import ModelVersion, RunInfo
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.reports.markdown import Markdown, escape, link, row
from pipeline.tracking.addresses import mlflow_page, mlflow_url
from pipeline.training.progress import LINE

FILES_SHOWN = 20
# The folder among the artifacts of an MLflow run that holds the validation report.
VALIDATION = "validation"
DATA_DOCS = f"{VALIDATION}/data_docs/index.html"


def key(*parts: str) -> str:
    """Return the parts as an artifact key, which may hold small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def mlflow_link(text: object, path: str) -> Markdown:
    """Return a link to a page of MLflow; without a server the text alone."""
    return link(text, mlflow_page(path))


def page_link(text: object, experiment_id: str | None, run_id: str, artifact: str = "") -> Markdown:
    """Return a link to an MLflow run, or to one of its artifacts."""
    page = run_page(experiment_id, run_id)
    return mlflow_link(text, f"{page}/artifacts/{artifact}" if artifact else page)


def run_page(experiment_id: str | None, run_id: str) -> str:
    """Return the page of an MLflow run; older `run.json` do not name its experiment."""
    return f"experiments/{experiment_id}/runs/{run_id}" if experiment_id else f"runs/{run_id}"


class EpochProgress:
    """A progress bar that follows the lines which a training prints."""

    def __init__(self) -> None:
        self.artifact: UUID | None = None

    def on_line(self, line: str) -> None:
        """Move the bar if the line reports an epoch."""
        if (match := LINE.fullmatch(line)) is None:
            return
        share = 100 * int(match["epoch"]) / int(match["epochs"])
        said = f"{match['name']}: epoch {match['epoch']} of {match['epochs']}, {match['text']}"
        text = escape(said)
        if self.artifact is None:
            made = create_progress_artifact(share, key("epochs", match["name"]), text)
            assert isinstance(made, UUID)
            self.artifact = made
        else:
            update_progress_artifact(self.artifact, share, text)


def show_run(run: RunInfo) -> None:
    """Link to the MLflow run that made a model, where there is a server to link to."""
    if page := mlflow_page(run_page(run.experiment_id, run.run_id)):
        name = f"{run.dataset} {run.model}"
        text = escape(f"MLflow run of {name}")
        create_link_artifact(page, text, key("mlflow", name), escape(run.run_id))


def show_history(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Show the epochs of a training as a table."""
    table = [
        {name: _rounded(value) for name, value in row.items() if name != "learning_rate"}
        for row in rows
    ]
    create_table_artifact(table, key("history", name), escape(f"Every epoch of {name}."))


def read_history(path: Path) -> list[dict[str, float]]:
    """Read a `history.csv`."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def show_picture(path: Path, name: str, text: str) -> None:
    """Show a PNG inside the page, so that it needs no other server and no password."""
    content = base64.b64encode(path.read_bytes()).decode()
    create_image_artifact(f"data:image/png;base64,{content}", name, escape(text))


def show_page(name: str, lines: Sequence[str], text: str) -> None:
    """Show a page of Markdown.

    Args:
        name: its key.
        lines: with every text that is not ours escaped.
        text: what it is.
    """
    create_markdown_artifact("\n".join(lines), name, escape(text))


def show_validation(report: ValidationReport, docs: str) -> None:
    """Show why a dataset failed validation, with the files."""
    lines = [f"# {escape(report.dataset)} did not pass validation", ""]
    for severity in ("error", "warning"):
        for result in report.failures(severity):
            lines += [f"## {severity}: {escape(result.check)}", "", escape(result.message), ""]
            lines += _files(result)
    show_page(key("validation", report.dataset), [*lines, "", docs], "What the checks found.")


def _files(result: CheckResult) -> list[str]:
    shown = [f"- {escape(name)}" for name in result.files[:FILES_SHOWN]]
    left = len(result.files) - len(shown)
    return [*shown, *([f"- and {left} more, all in the Data Docs"] if left > 0 else []), ""]


def show_summary(
    title: str,
    facts: Mapping[str, Any],
    rows: Sequence[ModelRow],
    runs: Sequence[RunInfo],
    version: ModelVersion | None,
) -> None:
    """Show the models side by side, with links to their runs and to the registered version.

    Args:
        title: the dataset and its models.
        facts: more to show, by name.
        rows: one per model.
        runs: the MLflow runs of the same models.
        version: the registered version, if there is one.
    """
    lines = [f"# {escape(title)}", ""]
    if rows:
        lines += [
            "| model | validation | test | 95% interval | epochs | training | DVC | MLflow run |",
            "|---|---|---|---|---|---|---|---|",
            *(_model_row(*pair) for pair in zip(rows, runs, strict=True)),
            "",
        ]
    if version is not None:
        name = mlflow_link(
            f"{version.name} version {version.version}",
            f"models/{version.name}/versions/{version.version}",
        )
        aliases = escape(", ".join(version.aliases) or "no alias")
        lines += [f"Registered: {escape(version.model)} as {name}, {aliases}.", ""]
        lines += [f"- not in production: {escape(text)}" for text in version.shortfalls]
    lines += [f"- {name}: {escape(value)}" for name, value in facts.items()]
    if runs:
        docs = page_link("Data Docs", runs[0].experiment_id, runs[0].run_id, DATA_DOCS)
        lines.append(f"- data: {docs}, with the MLflow run as `{DATA_DOCS}`")
    show_page("summary", lines, title)


def _model_row(made: ModelRow, run: RunInfo) -> str:
    tested = ["", ""]
    if made.accuracy is not None and made.accuracy_low is not None:
        interval = f"{100 * made.accuracy_low:.1f} to {made.accuracy_high:.1%}"
        tested = [f"{made.accuracy:.2%}", interval]
    # The link has the whole id.
    name = run.run_id[:8] if mlflow_url() else run.run_id
    return row(
        made.model,
        f"{made.val_accuracy:.2%}",
        *tested,
        made.epochs,
        f"{made.training_seconds:.1f} s",
        "cached" if made.cached else "trained",
        page_link(name, run.experiment_id, run.run_id),
    )
