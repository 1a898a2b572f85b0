"""Run DVC stages in a child process, which ends when this process does."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flows.execution import dvc_process
from flows.execution.checkout import Checkout
from pipeline.artifacts.project import store_file
from pipeline.errors import EXIT_CODE_RETRYABLE, PipelineError
from pipeline.redaction import redact

# One second more than the process itself takes before it kills what will not end.
SECONDS_TO_END = dvc_process.SECONDS_TO_END + 1


class StageFailed(PipelineError):
    """A stage ended with an error: its reason, and whether it is retryable."""


def environment(checkout: Checkout, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the stages.

    They run the code of the checkout with this interpreter, and use the MLflow store that
    `MLFLOW_TRACKING_URI` names; by default the one beside the repository.
    """
    given = dict(os.environ)
    store = f"sqlite:///{store_file(checkout.repository)}"
    return {
        **given,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(checkout.root), given.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "120",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": given.get("MLFLOW_TRACKING_URI") or store,
        **(more or {}),
    }


def run_command(
    checkout: Checkout,
    command: list[str],
    env: Mapping[str, str],
    seconds: float | None,
    answers: Container[int] = (0,),
) -> subprocess.CompletedProcess[str]:
    """Run a command of the checkout's code.

    Args:
        checkout: whose folder it runs in.
        command: the program and its arguments.
        env: its environment, as `environment` makes it.
        seconds: its time limit; None for no limit.
        answers: exit codes that are not failures.

    Raises:
        StageFailed: it fails, or takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            cwd=checkout.root,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StageFailed(f"{' '.join(command)}: no answer within {seconds:g} s") from None
    if done.returncode not in answers:
        # Typer prints a usage error in a box.
        lines = [line.strip(" │╭╰╮╯─") for line in done.stderr.splitlines()]
        reason = next(filter(None, reversed(lines)), f"it ended with {done.returncode}")
        raise StageFailed(reason.removeprefix("error: "), done.returncode == EXIT_CODE_RETRYABLE)
    return done


class Stages:
    """The stages of one checkout; a context manager."""

    def __init__(self, checkout: Checkout, environment: Mapping[str, str]) -> None:
        self.checkout = checkout
        self.process = subprocess.Popen(
            [sys.executable, dvc_process.__file__],
            cwd=checkout.root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        threading.Thread(target=self._end_orphans, daemon=True).start()

    def _end_orphans(self) -> None:
        """End the running stage if the process that runs it is killed."""
        self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def __enter__(self) -> Self:
        """Return the open stages."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process and all that it has started, within `SECONDS_TO_END`."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(SECONDS_TO_END)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.stdout.close()  # type: ignore[union-attr]

    def run(self, name: str, on_line: Callable[[str], None]) -> bool:
        """Run a stage unless DVC has its result.

        Args:
            name: as `dvc repro` takes it.
            on_line: called with every line that the stage prints.

        Returns:
            Whether it ran.

        Raises:
            StageFailed: it failed; the message is the stage's own.
        """
        return bool(self._ask({"run": name}, name, on_line)["executed"])

    def push(self, on_line: Callable[[str], None]) -> int | None:
        """Send data, models and run cache to the DVC remote; None where there is no remote.

        Raises:
            StageFailed: the push failed.
        """
        pushed: int | None = self._ask({"push": True}, "push", on_line)["pushed"]
        return pushed

    def _ask(
        self, request: dict[str, Any], name: str, on_line: Callable[[str], None]
    ) -> dict[str, Any]:
        pipe, reason = self.process.stdout, ""
        assert pipe is not None
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)
        for line in pipe:
            if line.startswith(dvc_process.ANSWER):
                answer: dict[str, Any] = json.loads(line.removeprefix(dvc_process.ANSWER))
                if "error" in answer:
                    retryable = answer["busy"] or answer["status"] == EXIT_CODE_RETRYABLE
                    raise StageFailed(f"{name}: {reason or answer['error']}", retryable)
                return answer
            text = redact(line.rstrip())
            if text.startswith("error: "):
                reason = text.removeprefix("error: ")
            if text:
                on_line(text)
        raise StageFailed(f"{name}: the process that runs the stages was killed; see the log above")
