"""The run of an interrupted training, in which another process goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities import LifecycleStage, RunStatus
from mlflow.entities import Run as Entity
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.redaction import without_login
from pipeline.tracking.provenance import Interruption
from pipeline.tracking.run import Run, Written
from pipeline.tracking.runs import FAILURE, ended
from pipeline.tracking.store import connect, reaching, store_uri

# Tags that may no longer hold.
OUTDATED = (FAILURE, "flow_run_id", "flow_run_url")


@dataclass(frozen=True)
class Left:
    """A run that an interrupted training has left, as its store knows it now.

    Attributes:
        run_id: its id.
        gone: why no training can go on in it; None where one can.
        status: of the run, where there is one.
        reason: the error that ended it.
        ended: when it ended; None where nothing noticed.
    """

    run_id: str
    gone: str | None = None
    status: str | None = None
    reason: str = ""
    ended: datetime | None = None

    def interruption(self, epoch: int, saved: datetime) -> Interruption:
        """Describe the interruption, after which the training goes on now.

        Args:
            epoch: the last one that was not lost.
            saved: when it was saved.
        """
        return Interruption(
            epoch=epoch,
            at=_text(self.ended or saved),
            status=self.status,
            reason=self.reason,
            resumed_at=_text(datetime.now(UTC)),
        )


def public_store() -> str:
    """Return the address of the store without a login, as it may be written to a file."""
    return without_login(store_uri())


def look_up(run_id: str, store: str) -> Left:
    """Look up the run of an interrupted training.

    Args:
        run_id: its id.
        store: the `public_store` then.

    Raises:
        TrackingError: the store cannot be reached.
    """
    here = public_store()
    if store != here:
        return Left(run_id, f"is in {store}, and this one goes to {here}")
    client = connect()
    with reaching(f"find run {run_id}"):
        found = _find(client, run_id)
    if found is None or found.info.lifecycle_stage == LifecycleStage.DELETED:
        return Left(run_id, f"was deleted from {here}")
    over = found.info.status != RunStatus.to_string(RunStatus.RUNNING)
    end = found.info.end_time if over else None
    return Left(
        run_id,
        status=found.info.status,
        reason=found.data.tags.get(FAILURE, "") if over else "",
        ended=datetime.fromtimestamp(end / 1000, UTC) if end else None,
    )


@contextmanager
def resumed_run(run_id: str) -> Iterator[Run]:
    """Go on in a run, and end it as a new one; what it has is not written again.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = connect()
    with reaching(f"go on in run {run_id}"):
        entity = client.get_run(run_id)
        steps = {
            (key, row.step)
            for key in entity.data.metrics
            if not key.startswith("system/")
            for row in client.get_metric_history(run_id, key)
        }
        written = Written(frozenset(entity.data.params), frozenset(steps))
        client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        for tag in entity.data.tags.keys() & OUTDATED:
            client.delete_tag(run_id, tag)
    with ended(Run(client, run_id, entity.info.experiment_id, written), goes_on=True) as run:
        yield run


def tags_of(interruptions: tuple[Interruption, ...]) -> dict[str, object]:
    """Return the tags that tell how often a training was interrupted, and each time."""
    rows = {f"interruption.{at}": row for at, row in enumerate(interruptions, start=1)}
    return {"resumed": len(rows), **rows} if rows else {}


def _find(client: MlflowClient, run_id: str) -> Entity | None:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
