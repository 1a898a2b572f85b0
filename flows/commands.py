"""Commands of the pipeline that answer in JSON, each as a task in a process of its own."""

import json
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.checkout import Checkout
from flows.stages import StageFailed, environment, run_command
from flows.training import RETRY_DELAYS, may_pass
from pipeline.errors import EXIT_CODE_NO

# A command that loads two models and asks them about 10,000 images takes a minute or two.
SECONDS = 1800


@task(name="pipeline", task_run_name="pipeline {name}", cache_policy=NO_CACHE, persist_result=False)
def change(checkout: Checkout, name: str, *arguments: str) -> dict[str, Any]:
    """Run a command that changes something, once; return what it prints.

    Args:
        checkout: whose code runs.
        name: of the command.
        arguments: of the command; those after `--` are its positional ones.

    Raises:
        StageFailed: it fails, or does not answer in time.
    """
    command = ["pipeline", name, "--json", *arguments]
    done = run_command(checkout, command, environment(checkout), SECONDS, (0, EXIT_CODE_NO))
    for line in filter(str.strip, done.stderr.splitlines()):
        get_run_logger().warning(line)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise StageFailed(f"pipeline {name} of {checkout.commit[:10]} prints no JSON") from None
    return answer


# The same for a command that only looks: it may be run again where a server was away.
look = change.with_options(
    retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=may_pass
)


def requester(who: str) -> str:
    """Return who asks, as the ledger gets it; without a name, the flow run."""
    return who.strip() or f"flow run {flow_run.id}"
