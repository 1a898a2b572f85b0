"""The flow `train`: one task per DVC stage, in a git worktree of its own."""

from typing import Annotated

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from flows.execution.chain import chain
from flows.execution.checkout import overlooked, worktree
from flows.execution.snapshot import changes_of
from flows.forms.form import CHOICES, Dataset, Model, RecipeChanges, Seed
from flows.forms.request import Request
from flows.pages.rows import ModelRow
from pipeline.artifacts.project import Until
from pipeline.artifacts.record import DeviceChoice


def run_name() -> str:
    """Return what the run is called: `digits: dense, cnn`."""
    given = flow_run.parameters
    return f"{given['dataset']}: {', '.join(given['models'])}"


@flow(name="train", flow_run_name=run_name, persist_result=False)
def train(
    dataset: Dataset = CHOICES.dataset,
    models: Annotated[list[Model], Field(min_length=1)] = list(CHOICES.models),  # noqa: B006
    overrides: dict[Model, RecipeChanges] = {},  # type: ignore[valid-type]  # noqa: B006
    device: DeviceChoice = "auto",
    seed: Seed | None = None,
    auto_promote: bool = True,
    until: Until = "register",
    revision: str = "HEAD",
) -> list[ModelRow]:
    """Train, compare and register models of one dataset, in a git worktree of their own.

    What was computed before is not computed again: it shows as Cached.

    Args:
        dataset: Which images.
        models: Which recipes of the dataset, side by side; the best on validation is registered.
        overrides: Changes of recipes for this run, by model, such as {"cnn": {"epochs": 3}}.
        device: auto takes a GPU where the worker has one; gpu fails where it has none.
        seed: Of weights, order and augmentation; empty takes that of params.yaml.
        auto_promote: Whether a version that passes the gate goes into production at once.
        until: The last stage to run.
        revision: The git commit, branch or tag whose code and params.yaml run.
    """
    request = Request(
        dataset=dataset,
        models=tuple(models),
        overrides=changes_of(overrides),
        device=device,
        seed=seed,
        auto_promote=auto_promote,
    )
    with worktree(revision, str(flow_run.id)) as checkout:
        if text := overlooked(checkout):
            get_run_logger().warning(text)
        return chain(checkout, request, until)
