"""A process that keeps the DVC repository open and runs stages on request.

It reads one JSON request per line from stdin, lets DVC and the stages write to stdout, and then
writes one marked line with the JSON answer. When stdin is closed, because the parent is done or
dead, it ends everything that it started. It runs as a file, so that it imports nothing of the
revision that it runs.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

# A training that is told to end still has to set the state of its MLflow run.
SECONDS_TO_END = 7
# No stage prints this, so the line is the answer.
ANSWER = "\0answer "


class Executed(logging.Handler):
    """Record which stages DVC runs, as opposed to those whose results it has."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record the stage that is about to run."""
        if record.msg == "Running stage '%s':" and isinstance(record.args, tuple):
            self.stages.append(str(record.args[0]))


class Project:
    """The DVC repository in the current directory."""

    def __init__(self) -> None:
        self.repo = Repo()
        self.has_remote = "remote" in self.repo.config["core"]
        self.executed = Executed()
        for chatty in ("dvc.dvcfile", "dvc.repo.scm_context"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        logging.getLogger("dvc.stage.run").addHandler(self.executed)

    def run(self, stage: str) -> dict[str, Any]:
        """Run one stage, unless DVC has its result."""
        self.executed.stages.clear()
        self.repo.reproduce(stage, single_item=True, pull=self.has_remote)
        return {"executed": stage in self.executed.stages}

    def push(self) -> dict[str, Any]:
        """Push what the remote lacks, with the run cache; do nothing without a remote."""
        files = self.repo.push(run_cache=True) if self.has_remote else None
        return {"pushed": files}


def answer(project: Project, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request; return its result or its error."""
    try:
        return project.push() if "push" in request else project.run(request["run"])
    except Exception as error:
        causes = list(chain(error))
        failed = next((c for c in causes if isinstance(c, StageCmdFailedError)), None)
        # A lock, or an unreachable remote: each kind of remote has its own errors.
        lasting = FileNotFoundError, PermissionError
        busy = "push" in request or any(
            isinstance(cause, LockError | OSError) and not isinstance(cause, lasting)
            for cause in causes
        )
        # The command's own message says more than DVC's summary.
        status = int(str(failed).rpartition(" ")[2]) if failed else None
        return {"error": ": ".join(str(c) for c in causes), "status": status, "busy": busy}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def watch(requests: "SimpleQueue[str | None]") -> None:
    """Queue requests; when stdin is closed, end what runs."""
    for line in sys.stdin:
        requests.put(line)
    requests.put(None)
    os.killpg(0, signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Answer requests until stdin is closed."""
    # The whole group gets the signal: the stages end, and this process after them.
    signal.signal(signal.SIGTERM, lambda *_: None)
    requests: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=watch, args=[requests], daemon=True).start()
    project = Project()
    with suppress(BrokenPipeError):
        while (request := requests.get()) is not None:
            print(f"{ANSWER}{json.dumps(answer(project, json.loads(request)))}", flush=True)


if __name__ == "__main__":
    main()
