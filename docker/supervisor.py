"""Run all services of a stack in the background until told to stop."""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cluster
import compose_file
import psutil
from home import ADDRESS, Home, variables, write
from interpolation import ComposeError
from runner import ENDED, Runner, base_environment

REPOSITORY = Path(__file__).parent.parent
TICK = 0.2


class Supervisor:
    """Starts services in order, watches them, and stops them in reverse order."""

    def __init__(self, home: Home, profiles: Sequence[str], without: Sequence[str]) -> None:
        self.home = home
        self.selection = {"profiles": sorted(profiles), "without": sorted(without)}
        raw = compose_file.read()
        self.values = variables(home, raw, os.environ)
        folder = cluster.binaries(os.environ)
        programs = [Path(sys.executable).parent, *([folder] if folder else [])]
        environment = base_environment(home.path, programs, os.environ)
        self.programs = folder
        self.runners = {
            service.name: Runner(
                service, environment, home.log(service.name), **self._options(service.name)
            )
            for service in compose_file.services(raw, self.values, profiles, without)
        }
        self.error = ""
        self._stopping = False
        self._written = ""

    def _options(self, name: str) -> dict[str, Any]:
        if name == cluster.SERVICE:
            return {"cwd": self.home.cluster, **cluster.identity()}
        # PostgreSQL's user may enter the home, so what the other services write is private.
        return {"cwd": REPOSITORY, "umask": 0o077}

    def run(self) -> int:
        """Run until a signal says stop.

        Returns:
            The exit code: 1 if it could not start.
        """
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._note()
        try:
            self._prepare()
        except (ComposeError, OSError) as error:
            self.error = str(error)
            self._note()
            return 1
        while not self._stopping:
            self._tick()
            time.sleep(TICK)
        for runner in reversed(self.runners.values()):
            runner.stop()
            self._note()
        self.home.state.unlink()
        return 0

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _prepare(self) -> None:
        """Create the database cluster, as PostgreSQL's image does on a new volume."""
        runner = self.runners.get(cluster.SERVICE)
        if runner is None:
            return
        if self.programs is None:
            raise ComposeError(
                f"{self.home.cluster} needs PostgreSQL, which is not installed; "
                "install it, or set POSTGRES_BIN to the folder of its programs"
            )
        port = self.values["POSTGRES_PORT"]
        cluster.create(self.home.cluster, self.programs, runner.environment, port)

    def _tick(self) -> None:
        now = time.monotonic()
        for name, runner in self.runners.items():
            request = self.home.requests / name
            if request.exists():
                request.unlink()
                runner.stop()
                runner.restarts += 1
                runner.start(now)
            elif runner.state == "waiting" and self._may_start(runner):
                runner.start(now)
            runner.tick(now)
        self._note()

    def _may_start(self, runner: Runner) -> bool:
        return all(
            self.runners[name].satisfies(condition)
            for name, condition in runner.service.depends_on.items()
        )

    def _note(self) -> None:
        """Write the state file, if anything has changed."""
        me = psutil.Process()
        state = {
            "supervisor": {"pid": me.pid, "created": me.create_time()},
            "error": self.error,
            **self.selection,
            "services": {name: self._entry(runner) for name, runner in self.runners.items()},
        }
        text = json.dumps(state, indent=1)
        if text != self._written:
            write(self.home.state, text)
            self._written = text

    def _entry(self, runner: Runner) -> dict[str, Any]:
        service = runner.service
        address = f"http://{ADDRESS}:{self.values[service.ports[0]]}" if service.published else ""
        return {
            "state": runner.state,
            "ready": runner.ready,
            "ended": runner.state in ENDED,
            "pid": runner.process.pid if runner.process else None,
            "created": runner.created,
            "restarts": runner.restarts,
            "exit_code": runner.exit_code,
            "url": address,
            "stop_signal": service.stop_signal.name,
            "stop_grace": service.stop_grace,
        }
