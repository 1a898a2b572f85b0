"""Requests to the Prefect server about flow runs."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling
from pydantic import TypeAdapter

from flows.execution.chain import ROWS
from flows.pages.rows import ModelRow

IDS_PER_QUERY = 100
CANCELLED_AT_ONCE = 8
ROWS_TYPE = TypeAdapter(list[ModelRow])


def online(client: SyncPrefectClient, pool: str) -> bool:
    """Return whether a pool has a worker online."""
    with suppress(ObjectNotFound):
        workers = client.read_workers_for_work_pool(pool)
        return any(worker.status == WorkerStatus.ONLINE for worker in workers)
    return False


def read_runs(client: SyncPrefectClient, ids: Sequence[UUID]) -> list[FlowRun]:
    """Read many flow runs with few requests."""
    runs: list[FlowRun] = []
    for some in _chunks(ids):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=some))
        runs += client.read_flow_runs(flow_run_filter=wanted, limit=IDS_PER_QUERY)
    return runs


def read_rows(client: SyncPrefectClient, ids: Sequence[UUID]) -> dict[UUID, list[ModelRow]]:
    """Read the tables of runs of `train`; of a run that was restarted, the last one."""
    found = []
    for some in _chunks(ids):
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=some), key=ArtifactFilterKey(any_=[ROWS])
        )
        found += client.read_artifacts(artifact_filter=wanted, limit=200)
    found.sort(key=lambda artifact: str(artifact.created))
    return {
        artifact.flow_run_id: ROWS_TYPE.validate_json(artifact.data)
        for artifact in found
        if artifact.flow_run_id is not None and isinstance(artifact.data, str)
    }


def _chunks(ids: Sequence[UUID]) -> Iterator[list[UUID]]:
    for start in range(0, len(ids), IDS_PER_QUERY):
        yield list(ids[start : start + IDS_PER_QUERY])


def cancel(client: SyncPrefectClient, ids: Iterable[UUID]) -> None:
    """Cancel runs; those that have ended, and failed requests, are ignored."""

    def cancel_one(flow_run_id: UUID) -> None:
        with suppress(httpx.HTTPError, PrefectException):
            client.set_flow_run_state(
                flow_run_id, Cancelling(message="the run that started it has ended, or pruned it")
            )

    with ThreadPoolExecutor(CANCELLED_AT_ONCE) as threads:
        list(threads.map(cancel_one, ids))


def has_ended(flow_run_id: str) -> bool:
    """Return whether a flow run has ended, or is unknown to this server."""
    with get_client(sync_client=True) as client:
        runs = read_runs(client, [UUID(flow_run_id)])
    return not runs or runs[0].state is None or runs[0].state.is_final()


def cancel_children_of(flow_run_id: str) -> int:
    """Cancel the runs that a killed flow run has left running; return how many."""
    parent = FlowRunFilterParentFlowRunId(any_=[UUID(flow_run_id)])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        left = [run.id for run in runs if run.state and not run.state.is_final()]
        cancel(client, left)
    return len(left)
