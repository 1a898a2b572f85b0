"""Wait until a stack is healthy, or say why it is not."""

import time
from typing import Any

import processes
import psutil
from home import Home
from rich.console import Console

# How often a service may end before it is healthy; and how many seconds the start may take.
PATIENCE, LONGEST = 3, 900
LOG_LINES = 20


def supervisor_of(state: dict[str, Any]) -> psutil.Process | None:
    """Return the supervisor's process if it is running."""
    return processes.find(**state["supervisor"]) if state else None


def wait(home: Home, console: Console) -> str:
    """Show each service that becomes ready, until all are.

    Returns:
        Why waiting is useless; empty if all services are ready.
    """
    began = time.monotonic()
    shown: dict[str, str] = {}
    before = {n: entry["restarts"] for n, entry in home.read_state().get("services", {}).items()}
    with console.status("starting") as status:
        while True:
            state = home.read_state()
            services = state.get("services", {})
            waiting = [name for name, entry in services.items() if not entry["ready"]]
            status.update(f"starting; still waiting for: {', '.join(waiting)}")
            for name, entry in services.items():
                if entry["ready"] and shown.get(name) != entry["state"]:
                    shown[name] = entry["state"]
                    passed = time.monotonic() - began
                    console.print(f"  {name:<15} {entry['state']:<9} {passed:5.1f} s")
            if services and not waiting:
                return ""
            if problem := _problem(home, state, before, time.monotonic() - began):
                return problem
            time.sleep(0.2)


def _problem(home: Home, state: dict[str, Any], before: dict[str, int], passed: float) -> str:
    """Return why waiting is useless, or nothing."""
    if state.get("error"):
        return str(state["error"])
    if not supervisor_of(state):
        return f"the supervisor ended:\n{tail(home, 'supervisor')}"
    for name, entry in state["services"].items():
        restarts = entry["restarts"] - before.get(name, 0)
        hopeless = entry["state"] in ("failed", "unhealthy") or restarts > PATIENCE
        if not entry["ready"] and (hopeless or passed > LONGEST):
            code = f", exit code {entry['exit_code']}" if entry["exit_code"] is not None else ""
            return (
                f"{name} is not healthy ({entry['state']}{code}); the end of "
                f"{home.log(name)}:\n{tail(home, name)}"
            )
    return ""


def tail(home: Home, name: str, lines: int = LOG_LINES) -> str:
    """Return the last lines of a service's log."""
    log = home.log(name)
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"
