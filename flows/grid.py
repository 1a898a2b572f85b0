"""The flow `grid`: datasets x models x seeds over the workers of a pool, in one table."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from flows.execution.snapshot import Changes, Snapshot, changes_of, take
from flows.forms.form import CHOICES, Dataset, Model, RecipeChanges, Seed
from flows.pages import charts, view
from flows.search.cells import Cell, Result, as_csv, as_markdown, cells_of, metrics, summarise
from flows.search.children import Bar, Children, ChildrenError, Ended, Pool
from pipeline.errors import ParamsError

if TYPE_CHECKING:
    from pipeline.tracking.groups import Groups
    from pipeline.tracking.run import Run

EXPERIMENT = "grids"


def run_name() -> str:
    """Return the name of a run in the UI."""
    asked = flow_run.parameters
    return f"{', '.join(asked['datasets'])}: {', '.join(asked['models'])}"


@flow(name="grid", flow_run_name=run_name, validate_parameters=True)
def grid(
    datasets: Annotated[list[Dataset], Field(min_length=1)] = [CHOICES.dataset],  # noqa: B006
    models: Annotated[list[Model], Field(min_length=1)] = list(CHOICES.models),  # noqa: B006
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2],  # noqa: B006
    overrides: dict[Model, RecipeChanges] = {},  # type: ignore[valid-type]  # noqa: B006
    pool: Pool = "cpu",
    cost_per_hour: Annotated[float, Field(ge=0)] = 0.0,
    revision: str = "HEAD",
) -> list[dict[str, Any]]:
    """Train every model on every dataset with every seed, and compare them in one table.

    What was computed before is not computed again: started again, a grid that was interrupted
    goes on where it stopped.

    Args:
        datasets: Which images.
        models: Which recipes; a dataset that lacks one is trained without it.
        seeds: Of weights, order and augmentation; one training for each.
        overrides: Changes of recipes, by model, such as {"cnn": {"epochs": 3}}.
        pool: Whose workers train.
        cost_per_hour: Of a worker, in your currency; the table says what a run costs.
        revision: The git commit, branch or tag whose code and params.yaml run.
    """
    changes = changes_of(overrides)
    snapshot = take(revision, str(flow_run.id))
    cells, skipped = plan(snapshot, datasets, models, seeds, changes)
    for text in skipped:
        get_run_logger().warning("skipped: %s", text)
    from pipeline.tracking.groups import Groups
    from pipeline.tracking.runs import new_run

    name = ", ".join(dict.fromkeys(cell.dataset for cell in cells))
    with new_run(EXPERIMENT, name) as parent:
        parent.log_tags({"flow_run_id": flow_run.id, "flow_run_url": flow_run.ui_url})
        asked = {"datasets": datasets, "models": models, "seeds": seeds, "overrides": changes}
        parent.log_params({**asked, "pool": pool, "cost_per_hour": cost_per_hour})
        parent.log_params({"revision": revision, "commit": snapshot.commit})
        results = _train_all(cells, changes, pool, snapshot.commit)
        summaries = _show(Groups(), parent, results, skipped, cost_per_hour)
        failed = [result for result in results if result.row is None]
        if failed:
            reasons = "; ".join(f"{result.cell}: {result.reason}" for result in failed)
            raise ChildrenError(f"{len(failed)} of {len(results)} have no result: {reasons}")
    return summaries


def plan(
    snapshot: Snapshot,
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    changes: Changes,
) -> tuple[list[Cell], list[str]]:
    """Return what to train and what to skip; all of it is checked before anything starts.

    Raises:
        ParamsError: something is unknown, or there is nothing to train.
    """
    if unknown := sorted(set(changes) - set(models)):
        raise ParamsError(f"overrides: {unknown[0]!r} is not trained; allowed: {', '.join(models)}")
    params = snapshot.params()
    cells, skipped = cells_of(datasets, models, seeds, params.recipes_for)
    if not cells:
        raise ParamsError(f"nothing to train: {'; '.join(skipped)}")
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in cells):
        snapshot.params_of(dataset, model, changes)
    return cells, skipped


def _train_all(cells: Sequence[Cell], changes: Changes, pool: Pool, commit: str) -> list[Result]:
    """Start all trainings, which the pool limits, and return how each one ended."""
    results: dict[Cell, Result] = {}
    with Children(pool) as children:
        bar = Bar("grid", len(cells))
        waiting: dict[UUID, Cell] = {
            children.start(_parameters(cell, changes, commit)): cell for cell in cells
        }
        while children:
            for ended in children.ended():
                cell = waiting[ended.flow_run_id]
                results[cell] = _result(cell, ended)
                text = f"{cell}: {_in_words(results[cell])}"
                get_run_logger().info(text)
                bar.advance(text)
    return [results[cell] for cell in cells]


def _parameters(cell: Cell, changes: Changes, commit: str) -> dict[str, Any]:
    return {
        "dataset": cell.dataset,
        "models": [cell.model],
        "seed": cell.seed,
        "overrides": {name: dict(value) for name, value in changes.items() if name == cell.model},
        "until": "evaluate",
        "auto_promote": False,
        "revision": commit,
    }


def _result(cell: Cell, ended: Ended) -> Result:
    if not ended.rows:
        return Result(cell, reason=f"{ended.state}: {ended.reason}")
    return Result(cell, ended.rows[0])


def _in_words(result: Result) -> str:
    row = result.row
    if row is None:
        return result.reason
    return f"{row.accuracy:.2%} on test{', cached' if row.cached else ''}"


def _show(
    groups: "Groups",
    parent: "Run",
    results: Sequence[Result],
    skipped: Sequence[str],
    cost_per_hour: float,
) -> list[dict[str, Any]]:
    """Show the table and the chart, and store both with the parent run."""
    summaries = summarise(results, cost_per_hour)
    run_ids = [run_id for one in summaries for run_id in one.run_ids]
    experiments = groups.adopt(parent.run_id, run_ids)
    failed = [result for result in results if result.row is None]
    text = as_markdown(
        summaries,
        failed,
        skipped,
        lambda run_id: view.page_link(run_id[:8], experiments.get(run_id), run_id),
    )
    link = view.page_link("The grid in MLflow", parent.experiment_id, parent.run_id)
    view.show_page("grid-table", [text, "", link], "Mean and deviation over seeds.")
    parent.log_metrics(metrics(summaries))
    parent.log_text(as_csv(summaries), "grid.csv")
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "grid.png"
        charts.draw_grid(picture, summaries)
        parent.log_artifact(picture)
        view.show_picture(picture, "grid-picture", "Mean and deviation over seeds.")
    return [one.as_row() for one in summaries]
