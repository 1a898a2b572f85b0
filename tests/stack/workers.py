"""Workers on a stack: processes of this machine that run a clone of this repository."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import clone
from tests.stack.running import Server, processes, until


class Workers:
    """The workers of a stack, and the server that they ask for work."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.source = clone(folder / "source")
        self.home = folder / "home"
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.client_env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))},
            **environment,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            # A worker asks for runs every 10 s by default: most tests would wait for that.
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PIPELINE_REPOSITORY": str(self.source),
            "PIPELINE_HOME": str(self.home),
        }
        self.server = Server(
            environment["PREFECT_API_URL"], environment.get("PREFECT_API_AUTH_STRING")
        )
        self.alive: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def worktrees(self) -> list[str]:
        """The worktrees that there are now."""
        folder = self.home / "repository" / ".runs"
        return [path.name for path in folder.iterdir() if path.is_dir()] if folder.exists() else []

    def trainings(self) -> list[psutil.Process]:
        """Return the trainings that these workers' runs have started."""
        found = []
        for process in processes("pipeline train"):
            with suppress(psutil.Error):
                if process.cwd().startswith(str(self.home)):
                    found.append(process)
        return found

    def deploy(self) -> None:
        """Set the server up, as `make deploy` does."""
        subprocess.run(
            [sys.executable, "-m", "flows.deploy"],
            env={**self.client_env, "CPU_SLOTS": "3"},
            check=True,
        )

    def start(self, pool: str) -> None:
        """Start a worker of a pool, as the compose file does."""
        command = ["prefect", "worker", "start", "--pool", pool, "--type", "process"]
        log = (self.logs / f"{pool}.log").open("ab")
        self.alive[pool] = subprocess.Popen(
            [*command, "--name", f"{pool}-test"],
            env=self.client_env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # A worker that was killed is known to the server by the same name: so look at the log.
        before = log.tell()
        until(
            lambda: b"started" in (self.logs / f"{pool}.log").read_bytes()[before:],
            60,
            f"worker of {pool}",
        )

    def kill(self, pool: str) -> None:
        """Kill a worker as the system does when memory is short."""
        worker = self.alive.pop(pool)
        worker.kill()
        worker.wait()

    def stop(self) -> None:
        """Stop every worker."""
        for worker in self.alive.values():
            worker.send_signal(signal.SIGINT)
        for worker in self.alive.values():
            worker.wait(60)

    def run(self, deployment: str, parameters: dict[str, Any], timeout: float = 240) -> str:
        """Run a deployment to its end, which must be a good one; return the run's id."""
        return self.server.run(deployment, parameters, timeout)

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Return the table of models that a run ends with."""
        data = self.server.artifacts(run_id)["models"]["data"]
        rows: list[dict[str, Any]] = json.loads(data)
        return rows


@pytest.fixture(scope="session")
def workers(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Return a deployed server with a worker each on the pools `cpu` and `control`."""
    made = Workers(stack.env, tmp_path_factory.mktemp("workers"))
    made.deploy()
    for pool in ("cpu", "control"):
        made.start(pool)
    yield made
    made.stop()
    assert not processes("dvc_process.py", str(made.home))
