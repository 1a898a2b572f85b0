"""Every route of the Prefect server, over HTTP: who has the password may all, others nothing."""

import json
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests import routes

PASSWORD = "admin:a password of tests"
# Says what it will answer, then answers; without its database, which is asked after the password.
SERVE = """
import json, sys, uvicorn
from fastapi.routing import iter_route_contexts
from prefect.server.api.server import create_app
from starlette.routing import Mount

def rules(app, above=""):
    for route in iter_route_contexts(app.routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount):
            if hasattr(original.app, "routes"):
                yield from rules(original.app, above + original.path)
        else:
            for method in getattr(route, "methods", None) or ["WEBSOCKET"]:
                yield method, above + route.path

app = create_app()
print(json.dumps(list(rules(app))), flush=True)
uvicorn.run(app, fd=int(sys.argv[1]), lifespan="off", log_config=None)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefect")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment = {
        **kept,
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder),
        "PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
    }
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(listening.fileno())],
            cwd=folder,
            env=environment,
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        port = listening.getsockname()[1]
        assert process.stdout
        rules = json.loads(process.stdout.readline())
        url = f"http://127.0.0.1:{port}"
        yield SimpleNamespace(
            url=url,
            # After an error the server hangs up, so every request has a connection of its own.
            client=httpx.Client(timeout=60, trust_env=False, headers={"Connection": "close"}),
            rules=[(m, r) for m, r in rules if m not in ("HEAD", "OPTIONS", "WEBSOCKET")],
            sockets=[rule for method, rule in rules if method == "WEBSOCKET"],
        )
        process.terminate()
        process.wait(30)


def is_closed(rule):
    return any(rule == r or rule.startswith(f"{r}/") for r in routes.PREFECT_CLOSED.split())


def address(server, rule):
    nothing = "00000000-0000-4000-8000-000000000000"
    return server.url + re.sub(r"{[^}]+}", nothing, rule)


def ask(server, method, rule, auth=None):
    return server.client.request(method, address(server, rule), auth=auth)


def test_every_route_is_placed(server):
    public = routes.listed(routes.PREFECT_PUBLIC)
    new = {pair for pair in server.rules if pair not in public and not is_closed(pair[1])}
    assert not new, f"Prefect has routes that tests/routes.py does not know: {sorted(new)}"
    assert public <= set(server.rules)
    every = [rule for _, rule in server.rules] + server.sockets
    stale = [r for r in routes.PREFECT_CLOSED.split() if not any(e.startswith(r) for e in every)]
    assert not stale
    assert len(server.rules) > 150


def test_nobody_gets_in_without_the_password(server):
    for method, rule in server.rules:
        if is_closed(rule):
            for auth in (None, ("admin", "wrong")):
                status = ask(server, method, rule, auth).status_code
                assert status == 401, (method, rule, auth, status)
    for method, rule in routes.listed(routes.PREFECT_PUBLIC):
        assert ask(server, method, rule).status_code != 401, (method, rule)


def test_nobody_looks_into_what_is_open(server):
    for method, rule in routes.listed(routes.PREFECT_PUBLIC):
        assert PASSWORD.partition(":")[2] not in ask(server, method, rule).text


def test_who_has_the_password_may_all(server):
    user, _, password = PASSWORD.partition(":")
    for method, rule in server.rules:
        # Without content, so that most stop at what is missing.
        if "/admin/database" not in rule:
            answer = ask(server, method, rule, (user, password))
            assert answer.status_code not in (401, 403), (method, rule)


def test_settings_are_shown_without_secrets(server):
    user, _, password = PASSWORD.partition(":")
    shown = ask(server, "GET", "/api/admin/settings", (user, password))
    assert shown.status_code == 200
    assert "auth_string" in shown.text
    assert password not in shown.text


@pytest.mark.parametrize("protocols", [None, ["prefect"]])
def test_no_websocket_is_opened_without_the_password(server, protocols):
    assert len(server.sockets) >= 4
    for rule in server.sockets:
        url = address(server, rule).replace("http", "ws", 1)
        with pytest.raises((ConnectionClosed, InvalidStatus)):  # noqa: PT012, SIM117
            with connect(url, subprotocols=protocols) as opened:
                opened.send(json.dumps({"type": "auth", "token": "admin:wrong"}))
                opened.recv(timeout=30)
