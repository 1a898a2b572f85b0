"""The real stack, as `make stack` runs it: in a folder of its own, on free ports."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clone, runner
from tests.stack.workers import workers

__all__ = ["workers"]
STACK = Path(__file__).parent.parent.parent / "docker" / "stack.py"
PORTS = (
    *("POSTGRES_PORT", "MLFLOW_PORT", "PREFECT_PORT"),
    *("WORKER_CPU_PORT", "WORKER_CONTROL_PORT", "WORKER_GPU_PORT"),
)
PRIVATE = ("MLFLOW_", "PREFECT_", "PIPELINE_", "POSTGRES_", "AWS_")
# The deployments too: tests bring their own.
WITHOUT = ("deploy", "worker-cpu", "worker-control")


def free_ports() -> dict[str, str]:
    """Return a free port for every service; taken together, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {name: str(s.getsockname()[1]) for name, s in zip(PORTS, sockets, strict=True)}


class Stack:
    """A native stack in a folder.

    Attributes:
        home: the folder.
        environment: of the commands; what is put into it counts at the next `up`.
        without: services that are left out.
    """

    def __init__(self, home: Path, without: tuple[str, ...] = WITHOUT, **environment: str) -> None:
        self.home, self.without = home, without
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE)}
        self.environment = {**inherited, "COLUMNS": "200", **free_ports(), **environment}

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker/stack.py`."""
        done = subprocess.run(
            [sys.executable, str(STACK), *arguments, "--home", str(self.home)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Start it, or see that it is up."""
        return self.command("up", *(f"--without={name}" for name in self.without), check=check)

    def down(self) -> subprocess.CompletedProcess[str]:
        """End it; its data stays."""
        return self.command("down")

    def restart(self, service: str) -> None:
        """Stop a service and start it again."""
        self.command("restart", service)

    @property
    def env(self) -> dict[str, str]:
        """What a client needs, as `docker/stack.py env` prints it."""
        words = shlex.split(self.command("env").stdout)
        return dict(word.split("=", 1) for word in words if word != "export")

    def state(self) -> dict[str, Any]:
        """Return what the supervisor says."""
        found: dict[str, Any] = json.loads((self.home / "state.json").read_text())
        return found

    def service(self, name: str) -> dict[str, Any]:
        """Return what the supervisor says about one service."""
        found: dict[str, Any] = self.state()["services"][name]
        return found


MakeStack = Callable[..., Stack]


@pytest.fixture(scope="session")
def deterministic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone that trains deterministically, in which `dvc repro` has run; leave it so."""
    folder = clone(tmp_path_factory.mktemp("deterministic") / "clone")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("deterministic: false", "deterministic: true"))
    run = runner(folder)
    run("git", "commit", "-qam", "deterministic")
    run("dvc", "repro")
    return folder


@pytest.fixture(scope="session")
def make_stack() -> Iterator[MakeStack]:
    """Return a function that prepares a stack in a new folder; it is down in the end."""
    made: list[Stack] = []

    def make(**options: Any) -> Stack:
        # pytest's own folders are closed to the user that PostgreSQL runs as under root.
        made.append(Stack(Path(tempfile.mkdtemp(prefix="stack-")), **options))
        return made[-1]

    yield make
    for stack in made:
        stack.down()
        shutil.rmtree(stack.home)


@pytest.fixture(scope="session")
def stack(make_stack: MakeStack) -> Stack:
    """Return the stack without workers, up and healthy; leave it so."""
    stack = make_stack()
    # Also the name under which the proxy's tests ask for MLflow.
    hosts = ("localhost", "127.0.0.1")
    names = [f"{host}:{stack.environment['MLFLOW_PORT']}" for host in hosts]
    stack.environment["MLFLOW_ALLOWED_HOSTS"] = ",".join([*names, "mlflow.example.org"])
    stack.up()
    return stack
