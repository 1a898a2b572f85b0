"""What flows and their tasks try again, how often and when, and how long they may take."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from pipeline.errors import PipelineError

# Before the second, third and fourth attempt: a server restarts, a lock is released.
DELAYS = (timedelta(seconds=5), timedelta(seconds=20), timedelta(seconds=60))


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task failed for a reason that may soon be gone, such as a network."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.retryable


@dataclass(frozen=True)
class TaskPolicy:
    """How often a task is tried, and how long its command may take.

    Attributes:
        delays: before each attempt after the first; only what is retryable is retried.
        limit: the limit of one attempt; None where nobody can say: a training may take days.
    """

    delays: tuple[timedelta, ...] = ()
    limit: timedelta | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of Prefect's `task`; nothing is cached, as DVC knows what need not run."""
        options = {"cache_policy": NO_CACHE, "persist_result": False}
        if not self.delays:
            return options
        seconds = [delay.total_seconds() for delay in self.delays]
        retries = {"retries": len(seconds), "retry_delay_seconds": seconds}
        return {**options, **retries, "retry_condition_fn": is_retryable}

    @property
    def seconds(self) -> float | None:
        """The limit in seconds."""
        return None if self.limit is None else self.limit.total_seconds()


TASKS = {
    "stage": TaskPolicy(DELAYS),
    "keep": TaskPolicy(DELAYS),
    # A missing GPU fails the run at once.
    "device": TaskPolicy(limit=timedelta(seconds=50)),
    # `pipeline` commands; one that predicts 10,000 images with two models takes a minute or two.
    "look": TaskPolicy(DELAYS, timedelta(minutes=30)),
    # What changes production runs once: a second rollback would go back one version more.
    "change": TaskPolicy(limit=timedelta(minutes=30)),
}


@dataclass(frozen=True)
class FlowPolicy:
    """What happens to runs of a flow that crash, and how long they wait.

    Attributes:
        restarts: how often the server starts a run again that crashed, as when its worker died.
        wait: how long a run waits for what its comment names; zero where it waits for nothing.
    """

    restarts: int = 0
    wait: timedelta = timedelta(0)


# Every flow: its file is flows/<name>.py, and its deployments are in prefect.yaml.
FLOWS = {
    "train": FlowPolicy(restarts=2),
    "grid": FlowPolicy(),
    # For an earlier run of the same study: by then the server knows whether it is dead.
    "tune": FlowPolicy(wait=timedelta(minutes=2)),
    # For a person's approval.
    "promote": FlowPolicy(wait=timedelta(days=1)),
    "rollback": FlowPolicy(),
    "audit": FlowPolicy(),
}

# Without a heartbeat, which is due every 30 s, a run has crashed: two may be lost on the way.
NO_HEARTBEAT = timedelta(seconds=75)
# A run that a worker has taken and not begun by then has crashed.
NOT_BEGUN = timedelta(seconds=110)
# Before a crashed run is restarted: the runner and the worker both report the crash.
BEFORE_RESTART = timedelta(seconds=10)
# A flow that starts trainings takes a crashed one for lost when nothing has restarted it by then.
CRASHED_FOR_GOOD = timedelta(seconds=30)
# It gives up when the Prefect server has not answered for so long; a restart takes less.
SERVER_AWAY = timedelta(minutes=5)
