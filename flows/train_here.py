"""The flow `train` in this working tree, without a server and a worker."""

import os
from pathlib import Path

# No telemetry unless it is asked for.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A slow, busy machine needs longer than Prefect's 20 seconds to start its temporary server.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import flow

from flows.execution import run_log
from flows.execution.chain import chain
from flows.execution.checkout import here
from flows.forms.request import Request, read_settings
from flows.pages.rows import ModelRow
from pipeline.artifacts.project import PARAMS_FILE, Until
from pipeline.artifacts.record import DeviceChoice
from pipeline.errors import ParamsError
from pipeline.params.params import load_params


@flow(name="train", flow_run_name="{dataset}, here", validate_parameters=False)
def train_here(dataset: str, request: Request, until: Until) -> list[ModelRow]:
    """Run the stages of `flows.train.train` in the working tree."""
    return chain(here(), request, until)


def run_here(
    *,
    dataset: str | None,
    models: tuple[str, ...] | None,
    settings: list[str],
    device: DeviceChoice | None,
    seed: int | None,
    auto_promote: bool | None,
    until: Until,
) -> list[ModelRow]:
    """Run the flow in the working tree; the request stays in its params.yaml.

    It reports to the Prefect server that `PREFECT_API_URL` names, or else to a temporary one.

    Args:
        dataset: which images; None leaves this and what follows as params.yaml has it.
        models: which recipes.
        settings: changes of recipes, each as `cnn.epochs=3`.
        device: where to train.
        seed: the seed of weights, order and augmentation.
        auto_promote: whether a version that passes the gate goes into production.
        until: the last stage to run.

    Returns:
        A row per model.

    Raises:
        ParamsError: a value does not exist or is out of range.
        StageFailed: a stage failed.
    """
    root = here().root
    if Path.cwd() != root:
        raise ParamsError(f"this is {Path.cwd()}; the stages run in the top folder: cd {root}")
    params = load_params()
    request = Request(
        dataset=dataset,
        models=models,
        overrides=read_settings(settings, list(models or params.models)),
        device=device,
        seed=seed,
        auto_promote=auto_promote,
    )
    # Before Prefect starts, which takes seconds.
    params = request.apply(PARAMS_FILE)
    run_log.hide_tracebacks()
    return train_here(params.dataset, request, until)
