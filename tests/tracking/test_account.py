"""The account under which somebody moves production: what the server says, and what is typed."""

import io
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import requests
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.ledger_view import render
from pipeline.production.recording import current_user, record, time_for
from pipeline.registry.ledger import Action, Entry, standing
from pipeline.registry.ledger_run import create_registered_model, ledger_of
from pipeline.tracking.store import account, connect
from tests.accounts import client_environment, server

PASSWORDS = {"admin": "a-password-of-twelve", "ada": "another-password-of-twelve"}
OLD = {
    "sequence": 1,
    "key": "0",
    "action": "promoted",
    "previous": None,
    "version": 1,
    "who": "ada (root@host)",
    "when": "2026-01-01T12:00:00+00:00",
    "reason": "why",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with server(tmp_path_factory.mktemp("server") / "it", "admin", PASSWORDS["admin"]) as address:
        made = requests.post(
            f"{address}/api/2.0/mlflow/users/create",
            json={"username": "ada", "password": PASSWORDS["ada"]},
            auth=("admin", PASSWORDS["admin"]),
            timeout=30,
        )
        made.raise_for_status()
        yield address


@pytest.fixture
def ada(address, monkeypatch):
    for name, value in client_environment(address, "ada", PASSWORDS["ada"]).items():
        monkeypatch.setenv(name, value)


@pytest.mark.long
def test_the_server_says_who_asks(address, ada, monkeypatch):
    assert account() == "ada"
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    login = f"admin:{PASSWORDS['admin']}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("://", f"://{login}@"))
    assert account() == "admin"


@pytest.mark.long
def test_a_name_with_another_password_proves_nothing(ada, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    assert account() is None


@pytest.mark.long
def test_an_entry_has_the_account_and_what_was_typed(ada, capsys):
    create_registered_model(connect(), "tiny")
    ledger = ledger_of("tiny")
    for who in ("", "Bob"):
        now = standing(ledger.entries())
        when = time_for(ledger, None)
        record(ledger, now, Action.REFUSED, 1, when=when, who=who, reason="why")
    first, second = ledger.entries()
    assert (first.account, first.who) == ("ada", current_user())
    assert (second.account, second.who) == ("ada", "Bob")
    assert second.asked_by == "MLflow account ada; Bob (not proven)"
    shown = json.loads(CliRunner().invoke(app, ["history", "tiny", "--json"]).stdout)
    assert [entry["account"] for entry in shown["entries"]] == ["ada", "ada"]


def test_an_entry_of_before_proves_nothing():
    entry = Entry.model_validate_json(json.dumps(OLD))
    assert entry.account is None
    assert entry.asked_by == "ada (root@host) (not proven)"


def test_the_ledger_shows_both():
    entries = [Entry.model_validate(OLD | new) for new in ({}, {"sequence": 2, "account": "eve"})]
    console = Console(width=200, file=io.StringIO())
    console.print(render(entries, "tiny"))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    newest, oldest = (line.split() for line in said.splitlines() if "promoted" in line)
    assert "eve" in newest
    assert "eve" not in oldest


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, ""), (200, "<html>"), (200, "{}"), (200, "[]"), (200, '{"user": null}')],
)
def test_a_server_without_accounts_proves_nothing(monkeypatch, status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as without:
        Thread(target=without.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{without.server_port}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "x")
        assert account() is None
        without.shutdown()


def test_a_store_without_a_server_proves_nothing(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert account() is None
