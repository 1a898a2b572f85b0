"""The table at the end of `make run`, made from the files of the last run."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pipeline.reports.wording import interval_text, value_text
from pipeline.workspace import Workspace


def render(workspace: Workspace, models: Sequence[str]) -> RenderableType:
    """Return the models side by side, and what to try next.

    Raises:
        ArtifactError: the pipeline has not run for this dataset and these models.
    """
    version = workspace.registered
    # Narrow enough for a terminal of 80 columns.
    table = Table(title=f"{workspace.dataset}: accuracy", box=SIMPLE, collapse_padding=True)
    table.add_column("model", no_wrap=True)
    for name in ("parameters", "validation", "test", "95% interval", "training"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("registered", no_wrap=True)
    for model in models:
        row = workspace.evaluation(model).metrics
        registered = ""
        if model == version.model:
            registered = "\n".join([f"version {version.version}", *version.aliases])
        table.add_row(
            model,
            *(value_text(name, row[name]) for name in ("parameters", "val_accuracy", "accuracy")),
            interval_text("accuracy", (row["accuracy_low"], row["accuracy_high"])),
            value_text("training_seconds", row["training_seconds"]),
            registered,
        )
    notes = [f"not in production: {escape(text)}" for text in version.shortfalls]
    return Group(table, *notes, _next_steps(workspace, version.aliases))


def _next_steps(workspace: Workspace, aliases: tuple[str, ...]) -> str:
    spec = f"{workspace.dataset}@{aliases[-1]}" if aliases else workspace.dataset
    dataset = "fashion_mnist" if workspace.dataset != "fashion_mnist" else "mnist"
    return (
        "Next:\n"
        "  make ui                                          look at the runs in MLflow\n"
        "  source .venv/bin/activate                        then:\n"
        f"  dvc exp run register -S dataset={dataset:<15}  train on other images\n"
        f"  pipeline predict IMAGE --model {spec}"
    )
