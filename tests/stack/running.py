"""What a test does with a Prefect server: start runs, watch them, read what they show."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Server:
    """The API of a Prefect server, as its UI uses it."""

    url: str
    auth: str | None = None

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request; a server that is busy is given time."""
        auth = None
        if self.auth:
            name, _, password = self.auth.partition(":")
            auth = (name, password)
        return httpx.request(method, f"{self.url}{path}", json=body, auth=auth, timeout=60)

    def read(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer, which must be one."""
        answer = self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json()

    def request(self, deployment: str, parameters: Mapping[str, Any]) -> httpx.Response:
        """Ask for a run as the UI's form does."""
        made = self.read("GET", f"/deployments/name/{deployment}")
        return self.ask(
            "POST", f"/deployments/{made['id']}/create_flow_run", {"parameters": parameters}
        )

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start a run, and return its id."""
        answer = self.request(deployment, parameters)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def flow_run(self, run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        found: dict[str, Any] = self.read("GET", f"/flow_runs/{run_id}")
        return found

    def wait(
        self, run_id: str, states: Iterable[str] = FINAL, seconds: float = 240
    ) -> dict[str, Any]:
        """Wait until a run is in one of the states, by type or by name."""
        wanted, deadline = set(states), time.monotonic() + seconds
        while True:
            run = self.flow_run(run_id)
            if {run["state_type"], run["state_name"]} & wanted:
                return run
            if time.monotonic() > deadline:
                message = (run["state"] or {}).get("message")
                raise AssertionError(f"after {seconds} s: {run['state_name']}: {message}")
            time.sleep(0.25)

    def run(self, deployment: str, parameters: Mapping[str, Any], seconds: float = 240) -> str:
        """Start a run, which must complete, and return its id."""
        run_id = self.start(deployment, parameters)
        done = self.wait(run_id, seconds=seconds)
        assert done["state_type"] == "COMPLETED", done["state"]
        return run_id

    def change(self, run_id: str, state: str) -> None:
        """Put a run into a state, as the UI's buttons do."""
        body = {"state": {"type": state, "name": state.title()}}
        self.read("POST", f"/flow_runs/{run_id}/set_state", body)

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task runs of a flow run by name."""
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        return {row["name"]: row for row in self.read("POST", "/task_runs/filter", body)}

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the artifacts of a flow run by key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        return {row["key"]: row for row in self.read("POST", "/artifacts/filter", body)}

    def logs(self, run_id: str) -> str:
        """Return what a flow run has logged."""
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "limit": 200}
        return "\n".join(row["message"] for row in self.read("POST", "/logs/filter", body))


def processes(*words: str) -> list[psutil.Process]:
    """Return the living processes whose command line has all of the words."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and all(word in line for word in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Any, seconds: float, what: str) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.2)
    return found
