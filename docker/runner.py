"""One service as a process: its health checks and its restarts."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import processes
import psutil
from compose_file import Healthcheck, Service

State = Literal["waiting", "starting", "healthy", "unhealthy", "restarting", "done", "failed"]
ENDED = ("done", "failed")
# As docker does: each pause is twice the last; after a run of 10 s they start from the first.
FIRST_PAUSE, LONGEST_PAUSE, RAN_WELL = 0.1, 60.0, 10.0
LOG_SIZE = 10_000_000


class Health:
    """Runs the health check of a service again and again, without blocking."""

    def __init__(self, check: Healthcheck, environment: Mapping[str, str], now: float) -> None:
        self.check, self.environment = check, environment
        self.status: Literal["starting", "healthy", "unhealthy"] = "starting"
        self._failures = 0
        self._began, self._next = now, now
        self._probe: subprocess.Popen[bytes] | None = None
        self._asked = now

    def poll(self, now: float) -> None:
        """Read the result of a check that has ended, or start one when it is due."""
        if self._probe is None:
            if now >= self._next:
                self._probe = _start(self.check.test, self.environment, None)
                self._asked = now
            return
        code = self._probe.poll()
        if code is None and now - self._asked < self.check.timeout:
            return
        self.close()
        self._count(well=code == 0, now=now)
        young = self.status == "starting" and now - self._began < self.check.start_period
        self._next = now + (self.check.start_interval if young else self.check.interval)

    def _count(self, *, well: bool, now: float) -> None:
        if well:
            self.status, self._failures = "healthy", 0
        elif self.status != "starting" or now - self._began >= self.check.start_period:
            self._failures += 1
            if self._failures >= self.check.retries:
                self.status = "unhealthy"

    def close(self) -> None:
        """Kill a check that is still running."""
        if self._probe is not None:
            with contextlib.suppress(ProcessLookupError):
                self._probe.kill()
            self._probe.wait()
            self._probe = None


class Runner:
    """Starts a service, watches it and starts it again as its restart policy says."""

    def __init__(
        self, service: Service, environment: Mapping[str, str], log: Path, **options: Any
    ) -> None:
        self.service, self.log, self._options = service, log, options
        self.environment = {
            **environment,
            **service.environment,
            processes.SERVICE: service.name,
        }
        self.state: State = "waiting"
        self.process: subprocess.Popen[bytes] | None = None
        self.created = 0.0
        self.restarts = 0
        self.exit_code: int | None = None
        self._health: Health | None = None
        self._started, self._resume, self._pause = 0.0, 0.0, FIRST_PAUSE

    def start(self, now: float) -> None:
        """Start the process, and its health checks if it has any."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_SIZE:
            self.log.replace(self.log.with_suffix(".1.log"))
        self._started = now
        with self.log.open("ab") as output:
            try:
                self.process = _start(
                    self.service.command, self.environment, output, **self._options
                )
            except OSError as error:
                output.write(f"cannot start: {error}\n".encode())
                self._ended(127, now)
                return
        self.created = psutil.Process(self.process.pid).create_time()
        self.state, self.exit_code = "starting", None
        if check := self.service.healthcheck:
            self._health = Health(check, self.environment, now)

    def tick(self, now: float) -> None:
        """Update the state from the process, and restart it when that is due."""
        if self.state == "restarting" and now >= self._resume:
            self.start(now)
        elif self.process is not None:
            code = self.process.poll()
            if code is not None:
                self._ended(code, now)
            elif self._health:
                self._health.poll(now)
                self.state = self._health.status

    def _ended(self, code: int, now: float) -> None:
        self._clear()
        self.exit_code = code
        policy, _, most = self.service.restart.partition(":")
        again = policy in ("always", "unless-stopped") or (policy == "on-failure" and code != 0)
        if not again or (most and self.restarts >= int(most)):
            self.state = "done" if code == 0 else "failed"
            return
        if now - self._started >= RAN_WELL:
            self._pause = FIRST_PAUSE
        self.state, self._resume = "restarting", now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self.restarts += 1

    def stop(self) -> None:
        """Signal the process to end, wait, and kill what is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.service.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.service.stop_grace)
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.exit_code = self.process.wait()
        self._clear()
        self.state, self._pause = "waiting", FIRST_PAUSE

    def _clear(self) -> None:
        """End all that the process has started, as a container would."""
        if self._health:
            self._health.close()
        self._health = self.process = None
        home = Path(self.environment[processes.HOME])
        processes.kill(processes.marked(home, self.service.name))

    def satisfies(self, condition: str) -> bool:
        """Return whether those that depend on this service may start."""
        if condition == "service_healthy":
            return self.state == "healthy"
        if condition == "service_completed_successfully":
            return self.state == "done"
        return self.state in ("starting", "healthy", "unhealthy", "done")

    @property
    def ready(self) -> bool:
        """Whether the service is healthy, or done if it runs only once."""
        return self.state == ("healthy" if self.service.healthcheck else "done")


def _start(
    command: tuple[str, ...],
    environment: Mapping[str, str],
    output: IO[bytes] | None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **options,
    )


def base_environment(
    home: Path, programs: list[Path], environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what services inherit, without variables that would configure the servers."""
    private = ("MLFLOW_", "PREFECT_", "PIPELINE_", "POSTGRES_", "PG", "AWS_", "CUDA_VISIBLE")
    kept = {key: value for key, value in environ.items() if not key.startswith(private)}
    path = [str(folder) for folder in programs] + [environ.get("PATH", os.defpath)]
    return {
        **kept,
        "PATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        processes.HOME: str(home),
    }
