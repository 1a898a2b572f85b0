"""Announcements, sent to a real server that misbehaves."""

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.production import notify
from pipeline.production.notify import LONGEST_TEXT, Announcement, announce, as_json, as_slack
from pipeline.registry.ledger import Action

EVENT = Announcement(
    action=Action.PROMOTED,
    name="digits",
    version=3,
    previous=2,
    who="Ada",
    reason="every check passed",
    summary=("accuracy 0.9900", "no class loses more recall than it may"),
    url="http://mlflow.example/#/models/digits/versions/3",
)
SECRET = "a-secret-path"


class Hook:
    """A webhook; `script` says how it answers: a status, or `slow`, `reset`, `garbage`."""

    def __init__(self, script):
        self.script, self.received, self.over = list(script), [], threading.Event()

    def answer(self, handler):
        length = int(handler.headers["Content-Length"])
        self.received.append((handler.path, json.loads(handler.rfile.read(length))))
        step = self.script.pop(0) if self.script else 200
        if step == "slow":
            self.over.wait(10)
        elif step == "garbage":
            handler.wfile.write(b"\x00\xff no HTTP at all\r\n\r\n")
        elif step == "reset":
            handler.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset
        elif step == "endless":
            handler.send_response(200)
            handler.end_headers()
            self.over.wait(10)  # the body never comes
        else:
            handler.send_response(step)
            handler.send_header("Location", "/elsewhere")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        handler.close_connection = True


@contextmanager
def hook(*script):
    made = Hook(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            made.answer(self)

        def do_GET(self):
            made.received.append((self.path, "GET"))

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made, f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    finally:
        made.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in (notify.WEBHOOK, notify.SLACK):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(notify, "TIMEOUT", 0.3)
    monkeypatch.setattr(notify, "BACKOFF", 0.01)


def test_without_an_address_nothing_is_sent_and_nothing_said(capsys):
    announce(EVENT)
    assert capsys.readouterr() == ("", "")


def test_both_get_the_same_news_in_their_own_form(monkeypatch, capsys):
    with hook() as (own, address), hook() as (slack, other):
        monkeypatch.setenv(notify.WEBHOOK, address)
        monkeypatch.setenv(notify.SLACK, other)
        announce(EVENT)
    ((path, content),) = own.received
    assert path == f"/{SECRET}"
    assert content.pop("time").endswith("+00:00")
    assert content == {
        "event": "model.promoted",
        "title": "digits version 3 is in production; before: version 2",
        "action": "promoted",
        "name": "digits",
        "version": 3,
        "previous": 2,
        "who": "Ada",
        "reason": "every check passed",
        "summary": ["accuracy 0.9900", "no class loses more recall than it may"],
        "url": "http://mlflow.example/#/models/digits/versions/3",
    }
    ((_, said),) = slack.received
    assert said["text"] == "digits version 3 is in production; before: version 2"
    texts = [block["text"]["text"] for block in said["blocks"]]
    assert texts[1].startswith("Ada: every check passed\naccuracy 0.9900\n")
    assert texts[2] == "<http://mlflow.example/#/models/digits/versions/3|The version in MLflow>"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("script", [[500, 503], [429], ["reset", 500], [204]])
def test_what_passes_is_tried_again(monkeypatch, capsys, script):
    with hook(*script) as (own, address):
        monkeypatch.setenv(notify.WEBHOOK, address)
        announce(EVENT)
    assert len(own.received) == (1 if script == [204] else len(script) + 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("script", "attempts", "words"),
    [
        ([500] * 5, 3, "127.0.0.1 answered 500"),
        (["reset"] * 5, 3, "no connection to 127.0.0.1"),
        (["garbage"] * 5, 3, "no connection to 127.0.0.1"),
        (["slow"], 1, "127.0.0.1 did not answer within 0.3 s"),
        ([404], 1, "127.0.0.1 answered 404"),
        ([302], 1, "127.0.0.1 answered 302"),
        ([307], 1, "127.0.0.1 answered 307"),
    ],
)
@pytest.mark.parametrize("variable", [notify.WEBHOOK, notify.SLACK])
def test_a_webhook_that_fails_is_one_line(monkeypatch, capsys, variable, script, attempts, words):
    with hook(*script) as (own, address):
        monkeypatch.setenv(variable, address)
        announce(EVENT)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"warning: {variable}: {words}; the announcement is lost\n"
    assert [path for path, _ in own.received] == [f"/{SECRET}"] * attempts


def test_a_body_that_never_comes_is_not_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(notify, "TIMEOUT", 5)
    with hook("endless") as (own, address):
        monkeypatch.setenv(notify.WEBHOOK, address)
        began = time.monotonic()
        announce(EVENT)
        assert time.monotonic() - began < 3
    assert len(own.received) == 1
    assert capsys.readouterr().err == ""


def test_nobody_there_is_one_line_without_the_secret(monkeypatch, capsys):
    with hook() as (_, address):
        pass
    monkeypatch.setenv(notify.SLACK, address)
    announce(EVENT)
    error = capsys.readouterr().err
    assert "no connection to 127.0.0.1" in error
    assert error.count("\n") == 1
    assert SECRET not in error


@pytest.mark.parametrize(
    "address",
    [
        f"ftp://host/{SECRET}",
        f"file:///{SECRET}",
        f"hooks.example/{SECRET}",
        f"http:///{SECRET}",
        f"http://[::1/{SECRET}",
        f"http://host:port/{SECRET}",
        f"http://host:0/{SECRET}",
        f"https:{SECRET}",
    ],
)
def test_what_is_no_address_is_said_without_the_secret(monkeypatch, capsys, address):
    monkeypatch.setenv(notify.WEBHOOK, address)
    announce(EVENT)
    error = capsys.readouterr().err
    assert error.startswith("warning: PIPELINE_WEBHOOK_URL: not an address; set it to one")
    assert SECRET not in error


@pytest.mark.parametrize("host", ["..", "a" * 300, "user:pass@ä..b", "%00"])
def test_a_host_that_cannot_be_is_no_error(monkeypatch, capsys, host):
    monkeypatch.setenv(notify.WEBHOOK, f"http://{host}/{SECRET}")
    announce(EVENT)
    error = capsys.readouterr().err
    assert error.startswith("warning: PIPELINE_WEBHOOK_URL: ")
    assert error.count("\n") == 1
    assert SECRET not in error


@pytest.mark.parametrize(
    ("action", "version", "previous", "title"),
    [
        ("promoted", 1, None, "digits version 1 is in production"),
        ("forced", 3, 2, "digits version 3 is in production, against the gate; before: version 2"),
        ("refused", 3, 2, "digits version 3 is refused; production stays as it is: version 2"),
        ("rolled back", 2, 3, "digits version 2 is in production again; before: version 3"),
        ("restored", 2, 3, "digits has its aliases back where the ledger says"),
        ("found", None, 2, "digits is not as the ledger says"),
    ],
)
def test_every_action_has_a_title_and_an_event(action, version, previous, title):
    event = replace(EVENT, action=Action(action), version=version, previous=previous)
    assert event.title == title
    assert as_json(event)["event"] == f"model.{action}".replace(" ", "_")


def test_slack_shows_text_as_text():
    hostile = "<!channel> & <http://evil.example|click> *bold*\nnew line"
    event = replace(EVENT, who="A & B", reason=hostile, url="http://m/a|b?c=1&d=<e>")
    texts = [block["text"]["text"] for block in as_slack(event)["blocks"]]
    assert texts[1].splitlines()[0] == (
        "A &amp; B: &lt;!channel&gt; &amp; &lt;http://evil.example|click&gt; *bold* new line"
    )
    assert texts[2] == "<http://m/a%7Cb?c=1&amp;d=&lt;e&gt;|The version in MLflow>"
    assert len(as_slack(replace(event, url=None))["blocks"]) == 2


def test_slack_gets_no_longer_a_text_than_it_takes():
    event = replace(EVENT, summary=("& <b> " * 40,) * 100)
    for block in as_slack(event)["blocks"]:
        text = block["text"]["text"]
        assert len(text) <= LONGEST_TEXT
        assert not re.search("&(?!(amp|lt|gt);)", text), "no entity is cut"
