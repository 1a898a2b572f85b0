"""Find and stop the processes of a stack, also those whose supervisor was killed."""

import contextlib
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

# In the environment of every service, so that every process that it starts can be found.
HOME, SERVICE = "STACK_HOME", "STACK_SERVICE"


def find(pid: int, created: float) -> psutil.Process | None:
    """Return the process with this id, unless the id belongs to another process now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def marked(home: Path, service: str | None = None) -> list[psutil.Process]:
    """Return the processes that the services of the stack, or one of them, have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(HOME) == str(home) and (
                service is None or environment.get(SERVICE) == service
            ):
                found.append(process)
    return found


def end(process: psutil.Process, how: signal.Signals, grace: float) -> None:
    """Signal a process to end, and kill it if it still runs after `grace` seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(how)
    if not _wait([process], grace):
        kill([process])


def kill(victims: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    victims = list(victims)
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(victims, 10)


def _wait(those: list[psutil.Process], seconds: float) -> bool:
    """Return whether all have ended in time; zombies count as ended."""
    end = time.monotonic() + seconds
    while any(find(process.pid, process.create_time()) for process in those):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def sweep(home: Path, state: dict[str, Any]) -> list[str]:
    """Stop what a killed supervisor has left running, last started first.

    Returns:
        The names of the services that were still running.
    """
    left = []
    for name, entry in reversed(state.get("services", {}).items()):
        process = find(entry["pid"], entry["created"]) if entry.get("pid") else None
        if process is not None:
            left.append(name)
            end(process, signal.Signals[entry["stop_signal"]], entry["stop_grace"])
    # PostgreSQL's own processes end by themselves, and hide their environment.
    time.sleep(0.1 if left else 0)
    kill(marked(home))
    return left
