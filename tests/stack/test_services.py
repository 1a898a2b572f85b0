"""The stack over real HTTP: who may enter, what survives, and what happens after a kill."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import requests

from tests.stack.conftest import WITHOUT, MakeStack, Stack, free_ports

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "docker"))

import cluster
import processes
from home import read_env
from interpolation import ComposeError

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
NO_SERVERS = (*WITHOUT, "migrate", "mlflow", "prefect")


class Clients:
    """Speaks to both servers with the passwords of `stack.py env`."""

    def __init__(self, stack: Stack) -> None:
        env = stack.env
        self.mlflow_url, self.prefect_url = env["MLFLOW_TRACKING_URI"], env["PREFECT_API_URL"]
        self.mlflow, self.prefect = requests.Session(), requests.Session()
        self.mlflow.auth = (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"])
        user, _, password = env["PREFECT_API_AUTH_STRING"].partition(":")
        self.prefect.auth = (user, password)
        for session in (self.mlflow, self.prefect):
            session.trust_env = False

    def register(self, name: str) -> None:
        body = {"name": name}
        made = self.mlflow.post(f"{self._api}/registered-models/create", json=body)
        assert made.status_code == 200, made.text
        kept = self.mlflow.put(f"{self._artifacts}/{name}.txt", data=name.encode())
        assert kept.status_code == 200, kept.text

    def is_registered(self, name: str) -> bool:
        found = self.mlflow.get(f"{self._api}/registered-models/get", params={"name": name})
        kept = self.mlflow.get(f"{self._artifacts}/{name}.txt")
        return found.status_code == 200 and kept.text == name

    def start_flow_run(self, name: str) -> str:
        flow = self.prefect.post(f"{self.prefect_url}/flows/", json={"name": name}).json()
        body = {"flow_id": flow["id"], "name": name, "state": {"type": "COMPLETED"}}
        made = self.prefect.post(f"{self.prefect_url}/flow_runs/", json=body)
        assert made.status_code == 201, made.text
        body = {"name": name, "value": {"is": name}}
        assert self.prefect.post(f"{self.prefect_url}/variables/", json=body).status_code == 201
        return str(made.json()["id"])

    @property
    def _api(self) -> str:
        return f"{self.mlflow_url}/api/2.0/mlflow"

    @property
    def _artifacts(self) -> str:
        return f"{self.mlflow_url}/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def clients(stack: Stack) -> Clients:
    return Clients(stack)


def wait(until: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_everything_is_well(stack: Stack, clients: Clients):
    shown = stack.command("status").stdout
    for name, url in {"mlflow": clients.mlflow_url, "prefect": clients.prefect_url[:-4]}.items():
        assert url in shown
        assert stack.service(name)["state"] == "healthy"
    assert stack.service("migrate")["state"] == "done"


def test_a_second_up_changes_nothing(stack: Stack):
    before = stack.state()
    stack.up()
    assert stack.state() == before


def test_other_services_than_those_that_run_are_refused(stack: Stack):
    done = stack.command("up", check=False)
    assert done.returncode == 1
    assert "the stack is running with other services" in done.stderr


def test_strangers_are_refused(clients: Clients):
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    for url in (clients.mlflow_url, clients.mlflow_url + path):
        assert requests.get(url, timeout=10).status_code == 401
    wrong = ("admin", "wrong")
    assert requests.get(clients.mlflow_url + path, auth=wrong, timeout=10).status_code == 401
    url = f"{clients.prefect_url}/flows/filter"
    assert requests.post(url, json={}, timeout=10).status_code == 401
    assert requests.post(url, json={}, auth=wrong, timeout=10).status_code == 401
    assert clients.mlflow.get(clients.mlflow_url + path).status_code == 200
    assert clients.prefect.post(url, json={}).status_code == 200


def test_mlflow_refuses_another_name(clients: Clients):
    done = clients.mlflow.get(clients.mlflow_url, headers={"Host": "rebound.example"})
    assert done.status_code == 403
    assert "Host header" in done.text


def test_the_prefect_ui_asks_for_the_password_and_knows_its_server(clients: Clients):
    url = clients.prefect_url.removesuffix("/api")
    settings = clients.prefect.get(f"{url}/ui-settings").json()
    assert (settings["auth"], settings["api_url"]) == ("BASIC", clients.prefect_url)


def secrets_of(stack: Stack) -> list[str]:
    values = read_env(stack.home / "env")
    named = {k: v for k, v in values.items() if not k.endswith(("PORT", "DATABASE"))}
    assert len(named) >= 6
    return [value.split(":")[-1] for value in named.values()]


def assert_silent(text: str, secrets: list[str], where: object) -> None:
    for secret in secrets:
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            assert form not in text, where


def written(stack: Stack) -> dict[Path, str]:
    """Return all that the servers have written down, but for the databases and two known files."""
    known = [stack.home / name for name in ("env", "mlflow-auth.ini")]
    found = [p for p in stack.home.rglob("*") if p.is_file() and p not in known]
    kept = [p for p in found if stack.home / "postgres" not in p.parents]
    return {path: path.read_text(errors="replace") for path in kept}


def test_passwords_are_private(stack: Stack):
    secrets = secrets_of(stack)
    for process in processes.marked(stack.home):
        assert_silent(" ".join(process.cmdline()), secrets, process.name())
    for name in ("env", "mlflow-auth.ini", "state.json"):
        assert (stack.home / name).stat().st_mode & 0o777 == 0o600
    for name in ("logs", "artifacts", "prefect", "requests"):
        assert (stack.home / name).stat().st_mode & 0o777 == 0o700
    texts = written(stack)
    assert {stack.home / "logs" / f"{name}.log" for name in ("mlflow", "prefect")} <= set(texts)
    for path, text in texts.items():
        assert_silent(text, secrets, path)


PAGES = {
    "mlflow": ["/", "/api/3.0/mlflow/server-info", "/api/2.0/mlflow/users/list", "/version"],
    "prefect": ["/ui-settings", "/api/admin/settings", "/api/admin/version", "/openapi.json"],
}


def test_no_page_shows_a_password(stack: Stack, clients: Clients):
    secrets = secrets_of(stack)
    for url in PAGES["mlflow"]:
        answer = clients.mlflow.get(clients.mlflow_url + url)
        assert answer.status_code == 200, url
        assert_silent(answer.text, secrets, url)
    site = clients.prefect_url.removesuffix("/api")
    for url in PAGES["prefect"]:
        answer = clients.prefect.get(site + url)
        assert answer.status_code == 200, url
        assert_silent(answer.text, secrets, url)


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_no_error_shows_a_password(stack: Stack, clients: Clients):
    """Without its database a server complains, in its answer and in its log."""
    secrets, answers = secrets_of(stack), []

    def ask() -> bool:
        path = "/api/2.0/mlflow/experiments/create"
        for attempt in (
            lambda: clients.mlflow.post(clients.mlflow_url + path, json={"name": uuid4().hex}),
            lambda: clients.mlflow.post(clients.mlflow_url + path, data="{"),
            lambda: clients.prefect.post(f"{clients.prefect_url}/flows/filter", json={}),
            lambda: clients.prefect.post(f"{clients.prefect_url}/flows/", json={"name": 1}),
        ):
            with contextlib.suppress(requests.RequestException):
                answers.append(attempt())
        return any(answer.status_code >= 500 for answer in answers)

    for session in (clients.mlflow, clients.prefect):
        session.request = partial(session.request, timeout=20)  # type: ignore[method-assign]
    postgres = psutil.Process(stack.service("postgres")["pid"])
    postgres.send_signal(signal.SIGINT)
    wait(ask)
    # All is well again once passwords are compared.
    wrong = ("admin", secrets[0][:-1])
    wait(lambda: requests.get(clients.mlflow_url, auth=wrong, timeout=20).status_code == 401)
    url = f"{clients.prefect_url}/flows/filter"
    wait(lambda: clients.prefect.post(url, json={}).status_code == 200)
    for answer in answers:
        assert_silent(f"{answer.headers} {answer.text}", secrets, answer.url)
    for path, text in written(stack).items():
        assert_silent(text, secrets, path)
        assert secrets[0][:-1] not in text, path
    for name in ("mlflow", "prefect", "postgres"):
        assert_silent(stack.command("logs", name, "--lines", "500").stdout, secrets, name)


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_a_database_that_cannot_be_made_is_said_without_its_password(tmp_path, monkeypatch):
    # Twice the same: the second time the role is there already.
    script = tmp_path / cluster.INIT.name
    script.write_text(cluster.INIT.read_text().split("CREATE DATABASE")[0] * 2)
    monkeypatch.setattr(cluster, "INIT", script)
    secrets = [f"canary{number}" for number in range(3)]
    names = ("POSTGRES_PASSWORD", "MLFLOW_DATABASE_PASSWORD", "PREFECT_DATABASE_PASSWORD")
    environment = {**os.environ, **dict(zip(names, secrets, strict=True))}
    folder = cluster.binaries(os.environ)
    assert folder
    home = Path(tempfile.mkdtemp(prefix="cluster-"))
    home.chmod(0o711)
    try:
        with pytest.raises(ComposeError, match="already exists") as caught:
            cluster.create(home / "data", folder, environment, free_ports()["POSTGRES_PORT"])
        assert_silent(str(caught.value), secrets, "the error")
        assert "CREATE ROLE" not in str(caught.value)
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_both_databases_are_in_postgres(stack: Stack):
    assert stack.service("postgres")["state"] == "healthy"
    assert not list(stack.home.glob("*.db"))


def test_what_was_registered_survives_down_and_up(stack: Stack, clients: Clients):
    clients.register("kept")
    run = clients.start_flow_run("kept")
    stack.down()
    assert not processes.marked(stack.home)
    stack.up()
    again = Clients(stack)
    assert again.is_registered("kept")
    found = again.prefect.get(f"{again.prefect_url}/flow_runs/{run}").json()
    assert (found["name"], found["state_type"]) == ("kept", "COMPLETED")
    variable = again.prefect.get(f"{again.prefect_url}/variables/name/kept").json()
    assert variable["value"] == {"is": "kept"}


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_killed_service_is_started_again(stack: Stack, name: str):
    before = stack.service(name)
    os.kill(before["pid"], signal.SIGKILL)
    wait(lambda: stack.service(name)["restarts"] > before["restarts"])
    wait(lambda: bool(stack.service(name)["ready"]))
    assert stack.service(name)["pid"] != before["pid"]


def test_mlflow_restarts_while_the_others_go_on(stack: Stack, clients: Clients):
    clients.register("before")
    before = stack.state()["services"]
    stack.restart("mlflow")
    after = stack.state()["services"]
    assert clients.is_registered("before")
    assert before["mlflow"]["pid"] != after["mlflow"]["pid"]
    assert before["prefect"] == after["prefect"]
    done = stack.command("restart", "redis", check=False)
    assert done.returncode == 1
    assert "no service 'redis' is running; allowed: " in done.stderr


def test_logs_are_there(stack: Stack):
    assert "API reference documentation at" in stack.command("logs", "prefect").stdout
    done = stack.command("logs", "redis", check=False)
    assert "no log of 'redis'; allowed: " in done.stderr


@pytest.fixture(scope="module")
def database(make_stack: MakeStack) -> Stack:
    """Return a stack that is PostgreSQL alone; leave it up."""
    stack = make_stack(without=NO_SERVERS)
    stack.up()
    return stack


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_a_killed_supervisor_leaves_nothing_behind(database: Stack):
    stack = database
    for command in (stack.down, stack.up):
        state = stack.state()
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        wait(lambda: not psutil.pid_exists(state["supervisor"]["pid"]))  # noqa: B023
        assert psutil.pid_exists(state["services"]["postgres"]["pid"])
        done = command()
        assert "stopped what a killed supervisor had left running: postgres" in done.stdout
        left = state["services"]["postgres"]
        assert processes.find(left["pid"], left["created"]) is None
        assert not (stack.home / "postgres" / "postmaster.pid").exists() or command == stack.up
        stack.up()
    assert stack.service("postgres")["ready"]


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_a_service_may_be_restarted_often(database: Stack):
    before = database.service("postgres")["restarts"]
    for _ in range(5):
        database.restart("postgres")
    assert database.service("postgres")["restarts"] == before + 5


@pytest.mark.skipif(not cluster.binaries(os.environ), reason="PostgreSQL is not installed")
def test_a_service_that_is_not_healthy_is_said(make_stack: MakeStack):
    stack = make_stack(without=NO_SERVERS)
    stack.up()
    stack.down()
    with (stack.home / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    done = stack.up(check=False)
    assert done.returncode == 1
    assert "postgres is not healthy" in done.stderr
    assert 'unrecognized configuration parameter "no_such_setting"' in done.stderr
    assert not processes.marked(stack.home)


def test_a_taken_port_is_said(make_stack: MakeStack):
    stack = make_stack(without=NO_SERVERS[:-1])
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(stack.environment["PREFECT_PORT"])))
        other.listen()
        done = stack.up(check=False)
    assert done.returncode == 1
    assert "set PREFECT_PORT to another port" in done.stderr
    assert not processes.marked(stack.home)


def test_sqlite_takes_the_place_of_postgres(make_stack: MakeStack):
    stack = make_stack(POSTGRES_BIN="/nowhere")
    assert "warning: PostgreSQL is not installed" in stack.up().stdout
    assert "postgres" not in stack.state()["services"]
    clients = Clients(stack)
    clients.register("kept")
    run = clients.start_flow_run("kept")
    stack.down()
    # It stays with what it began with, even where PostgreSQL has been installed since.
    del stack.environment["POSTGRES_BIN"]
    stack.up()
    again = Clients(stack)
    assert again.is_registered("kept")
    assert again.prefect.get(f"{again.prefect_url}/flow_runs/{run}").status_code == 200


def test_what_is_down_says_so(make_stack: MakeStack):
    stack = make_stack()
    for command in ("status", "env"):
        done = stack.command(command, check=False)
        assert done.returncode == 1
        assert "start it: docker/stack.py up" in done.stderr
    assert stack.down().returncode == 0
