"""Commands of the pipeline that print JSON, each as a task in a process of its own."""

import json
from typing import Any

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from flows.execution import run_log
from flows.execution.checkout import Checkout
from flows.execution.stages import StageFailed, environment, run_command
from flows.retries import TASKS, TaskPolicy
from pipeline.errors import EXIT_CODE_NO

run_log.hide_secrets()


@task(name="change", task_run_name="pipeline {name}", **TASKS["change"].options)
def change(checkout: Checkout, name: str, *arguments: str) -> dict[str, Any]:
    """Run a command that changes something, once; return what it prints.

    Args:
        checkout: whose code runs.
        name: the name of the command.
        arguments: the arguments of the command; those after `--` are its positional ones.

    Raises:
        StageFailed: it fails, or takes too long.
    """
    return _run(checkout, name, arguments, TASKS["change"])


@task(name="look", task_run_name="pipeline {name}", **TASKS["look"].options)
def look(checkout: Checkout, name: str, *arguments: str) -> dict[str, Any]:
    """Run a command that changes nothing, again where a server was away; else as `change`."""
    return _run(checkout, name, arguments, TASKS["look"])


def _run(
    checkout: Checkout, name: str, arguments: tuple[str, ...], policy: TaskPolicy
) -> dict[str, Any]:
    command = ["pipeline", name, "--json", *arguments]
    done = run_command(checkout, command, environment(checkout), policy.seconds, (0, EXIT_CODE_NO))
    for line in filter(str.strip, done.stderr.splitlines()):
        get_run_logger().warning(line)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise StageFailed(f"pipeline {name} of {checkout.commit[:10]} prints no JSON") from None
    return answer


def requester(who: str) -> str:
    """Return who asks, as the ledger gets it; without a name, the flow run."""
    return who.strip() or f"flow run {flow_run.id}"
