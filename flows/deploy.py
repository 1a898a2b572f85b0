"""Set a Prefect server up: work pools, the deployments of prefect.yaml, and the automations.

`python -m flows.deploy` may be run again at any time; changes made in the UI, such as turning a
schedule on or off, are kept.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from flows.retries import BEFORE_RESTART, FLOWS, NO_HEARTBEAT, NOT_BEGUN
from pipeline.errors import PipelineError

PREFECT_YAML = Path(__file__).parent.parent / "prefect.yaml"
# How many runs each pool takes at once: for GPUs as many as there are.
SLOTS = {"cpu": "CPU_SLOTS", "gpu": "GPU_SLOTS", "control": "CONTROL_SLOTS"}
DEFAULT_SLOTS = {"cpu": 2, "gpu": 1, "control": 10}
# What every run of a pool gets; without a heartbeat the automations below take it for crashed.
RUN_ENVIRONMENT = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
# Deployments that have another name now; a server may still have those of an earlier release.
RENAMED = {"compare/compare": "grid/grid"}
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
ANY_RUN = {"prefect.resource.id": "prefect.flow-run.*"}


class DeployError(PipelineError):
    """The server cannot be reached, or refuses the deployment."""


def automations() -> list[Automation]:
    """Return what the server does by itself about runs whose process or worker has died."""
    heartbeat, pending = "prefect.flow-run.heartbeat", "prefect.flow-run.Pending"
    return [
        _unless_heard_of(
            "a silent run has crashed",
            after=heartbeat,
            expect={heartbeat, *ENDED},
            within=NO_HEARTBEAT,
            action=_crash("no sign of life: process and worker are gone"),
        ),
        _unless_heard_of(
            "a run that does not begin has crashed",
            after=pending,
            expect={"prefect.flow-run.Running", *ENDED},
            within=NOT_BEGUN,
            action=_crash("a worker took it, but it never began"),
        ),
        *(_restart(name, policy.restarts) for name, policy in FLOWS.items() if policy.restarts),
    ]


def _restart(flow: str, restarts: int) -> Automation:
    """Start a crashed run of a flow again; its deployments have the tag of the flow's name."""
    return _unless_heard_of(
        f"a crashed run is tried again, at most {restarts} times",
        after="prefect.flow-run.Crashed",
        expect={"prefect.flow-run.AwaitingRetry", "prefect.flow-run.Running"},
        within=BEFORE_RESTART,
        action=ChangeFlowRunState(
            name="AwaitingRetry",
            state=StateType.SCHEDULED,
            message="crashed; tried again",
            force=True,
        ),
        match={"prefect.run-count": [str(count + 1) for count in range(restarts)]},
        match_related={
            "prefect.resource.role": "tag",
            "prefect.resource.id": f"prefect.tag.{flow}",
        },
    )


def _unless_heard_of(
    name: str,
    *,
    after: str,
    expect: set[str],
    within: timedelta,
    action: ChangeFlowRunState,
    match: Mapping[str, Any] | None = None,
    match_related: dict[str, Any] | None = None,
) -> Automation:
    """Change a run's state where none of the expected events follows an event in time."""
    return Automation(
        name=name,
        trigger=EventTrigger(
            after={after},
            expect=expect,
            match={**ANY_RUN, **(match or {})},
            match_related=match_related or {},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[action],
    )


def _crash(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, message=message, force=True)


def slots(pool: str) -> int:
    """Return how many runs a pool takes at once: from the environment, or the default.

    Raises:
        DeployError: the variable is not a positive number.
    """
    text = os.environ.get(SLOTS[pool]) or str(DEFAULT_SLOTS[pool])
    if not text.isdigit() or int(text) < 1:
        raise DeployError(f"{SLOTS[pool]} is {text!r}; allowed: a whole number from 1 up")
    return int(text)


def job_template() -> dict[str, Any]:
    """Return the job template of a process pool."""
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["env"]["default"] = RUN_ENVIRONMENT
    return template


def make_pools(client: SyncPrefectClient) -> None:
    """Create the work pools; of those that exist, only set the limit."""
    for name in SLOTS:
        limit = slots(name)
        pool = WorkPoolCreate(
            name=name, type="process", base_job_template=job_template(), concurrency_limit=limit
        )
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
        print(f"work pool {name}: at most {limit} at once")


def delete_renamed(client: SyncPrefectClient) -> None:
    """Delete deployments of earlier releases, whose flows are no more; their runs stay."""
    for old, new in RENAMED.items():
        with suppress(ObjectNotFound):
            client.delete_deployment(client.read_deployment_by_name(old).id)
            print(f"deployment {old} is deleted: it is {new} now")


def read_schedules(client: SyncPrefectClient) -> dict[tuple[str, str], bool]:
    """Return which schedules are on, by deployment and slug."""
    return {
        (deployment.name, str(schedule.slug)): bool(schedule.active)
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
    }


def restore_schedules(client: SyncPrefectClient, before: Mapping[tuple[str, str], bool]) -> None:
    """Turn schedules on or off as they were: applying a deployment resets them.

    Args:
        client: a client of the server.
        before: as `read_schedules` returned them; new ones stay as they are.
    """
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            active = before.get((deployment.name, str(schedule.slug)), schedule.active)
            if active != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=active)


async def make_automations() -> None:
    """Create the automations, or bring those of the same name up to date."""
    for automation in automations():
        try:
            there = await Automation.aread(name=automation.name)
        except ValueError:
            await automation.acreate()
        else:
            automation.id = there.id
            await automation.aupdate()
        print(f"automation {automation.name}")


def deploy() -> None:
    """Apply prefect.yaml to the server.

    Raises:
        DeployError: the server refuses it.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [*command, "--prefect-file", str(PREFECT_YAML)],
        cwd=PREFECT_YAML.parent,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise DeployError(f"prefect deploy ended with {done.returncode}:\n{done.stdout}")
    for name in re.findall(r"Deployment '([^']+)' successfully", done.stdout):
        print(f"deployment {name}")


def main() -> None:
    """Set the server up that PREFECT_API_URL names."""
    if not PREFECT_API_URL.value():
        sys.exit(
            "error: PREFECT_API_URL is not set; set it to the server's, such as "
            "http://127.0.0.1:4200/api"
        )
    try:
        with get_client(sync_client=True) as client:
            if (error := client.api_healthcheck()) is not None:
                raise DeployError(f"no Prefect server at {PREFECT_API_URL.value()}: {error}")
            make_pools(client)
            schedules = read_schedules(client)
            deploy()
            restore_schedules(client, schedules)
            delete_renamed(client)
        asyncio.run(make_automations())
    except PipelineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
