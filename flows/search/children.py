"""Runs of `train` that another flow run starts, waits for, and cancels when it ends."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, cast
from uuid import UUID, uuid4

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.pages.rows import ModelRow
from flows.retries import CRASHED_FOR_GOOD, SERVER_AWAY
from flows.search import server
from pipeline.errors import PipelineError
from pipeline.redaction import redact
from pipeline.reports.markdown import escape

Pool = Literal["cpu", "gpu"]
SECONDS_BETWEEN_POLLS = 2.0


class ChildrenError(PipelineError):
    """Runs cannot be started, or failed."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Attributes:
        rows: what it has trained; empty unless it completed.
        state: its name, such as Failed.
        reason: why it did not complete.
    """

    flow_run_id: UUID
    rows: list[ModelRow] = field(default_factory=list)
    state: str = "Completed"
    reason: str = ""

    @classmethod
    def of(cls, run: FlowRun, rows: list[ModelRow]) -> Self:
        """Return how a run in a final state has ended."""
        assert run.state is not None
        if run.state.is_completed():
            return cls(run.id, rows, reason="" if rows else "it completed without a row of results")
        reason = redact(" ".join((run.state.message or "no reason given").split()))
        return cls(run.id, [], run.state.name or run.state.type.value.title(), reason)


class Children:
    """The runs of `train` that this flow run has started; a context manager."""

    def __init__(self, pool: Pool) -> None:
        """Take the pool whose workers run them."""
        self.deployment, self.pool = f"train/{pool}", pool
        self._crashed_since: dict[UUID, float | None] = {}
        self._cancelled: set[UUID] = set()
        self._answered = time.monotonic()

    def __enter__(self) -> Self:
        """Check that the pool has a deployment, and warn where it has no worker.

        Raises:
            ChildrenError: the pool has no deployment of `train`.
        """
        with get_client(sync_client=True) as client:
            try:
                client.read_deployment_by_name(self.deployment)
            except ObjectNotFound:
                raise ChildrenError(
                    f"the server has no deployment {self.deployment}: run `make deploy`"
                ) from None
            if not server.online(client, self.pool):
                get_run_logger().warning(
                    "no worker of the pool %s is online; runs wait until one is: "
                    "prefect worker start --pool %s",
                    self.pool,
                    self.pool,
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what still runs."""
        if left := set(self._crashed_since) - self._cancelled:
            get_run_logger().warning("cancelling %d runs that this one has started", len(left))
            with get_client(sync_client=True) as client:
                server.cancel(client, left)

    def __len__(self) -> int:
        """Return how many have not ended."""
        return len(self._crashed_since)

    def start(self, parameters: Mapping[str, Any]) -> UUID:
        """Start a run, linked to this one in the UI; return its id.

        Raises:
            ChildrenError: the server has not answered for minutes.
        """
        once = uuid4().hex
        while True:
            try:
                started = run_deployment(
                    self.deployment,
                    parameters=dict(parameters),
                    timeout=0,
                    idempotency_key=once,
                )
            except httpx.TransportError as error:
                self._wait_for_server(error)
                continue
            run = cast(FlowRun, started)  # a coroutine only where the caller is one
            self._answered = time.monotonic()
            self.watch(run.id)
            return run.id

    def watch(self, flow_run_id: UUID) -> None:
        """Count a run among those that are not over."""
        self._crashed_since[flow_run_id] = None

    def cancel(self, flow_run_id: UUID) -> None:
        """Cancel a run; `ended` returns it once it has ended."""
        self._cancelled.add(flow_run_id)
        with get_client(sync_client=True) as client:
            server.cancel(client, [flow_run_id])

    def ended(self) -> list[Ended]:
        """Wait a moment, and return the runs that have ended since the last call.

        Raises:
            ChildrenError: the server has not answered for minutes.
        """
        time.sleep(SECONDS_BETWEEN_POLLS)
        try:
            with get_client(sync_client=True) as client:
                runs = server.read_runs(client, list(self._crashed_since))
                over = self.over(runs)
                rows = server.read_rows(client, [run.id for run in over])
        except httpx.TransportError as error:
            self._wait_for_server(error)
            return []
        self._answered = time.monotonic()
        for run in over:
            del self._crashed_since[run.id]
        return [Ended.of(run, rows.get(run.id, [])) for run in over]

    def over(self, runs: Iterable[FlowRun]) -> list[FlowRun]:
        """Return those of the runs that are over; a crashed one may still be started again."""
        return [run for run in runs if self._is_over(run)]

    def _wait_for_server(self, error: httpx.TransportError) -> None:
        """Wait a moment for a server that does not answer, as it may be restarting."""
        if time.monotonic() - self._answered > SERVER_AWAY.total_seconds():
            raise ChildrenError(f"the Prefect server does not answer: {error}") from error
        time.sleep(SECONDS_BETWEEN_POLLS)

    def _is_over(self, run: FlowRun) -> bool:
        state = run.state
        if state is None or not state.is_final():
            self._crashed_since[run.id] = None
            return False
        if not state.is_crashed() or run.id in self._cancelled:
            return True
        now = time.monotonic()
        since = self._crashed_since[run.id] or now
        self._crashed_since[run.id] = since
        return now - since > CRASHED_FOR_GOOD.total_seconds()


class Bar:
    """A progress bar in the UI that counts the runs that have ended."""

    def __init__(self, key: str, total: int) -> None:
        """Show it empty."""
        self.total, self.done = total, 0
        made = create_progress_artifact(0, key, f"0 of {total}")
        assert isinstance(made, UUID)
        self.artifact = made

    def advance(self, text: str) -> None:
        """Count one more.

        Args:
            text: what has ended, and how.
        """
        self.done += 1
        share = min(100 * self.done / self.total, 100.0)
        # The next update replaces one that fails.
        with suppress(httpx.HTTPError):
            shown = escape(f"{self.done} of {self.total}: {text}")
            update_progress_artifact(self.artifact, share, shown)
