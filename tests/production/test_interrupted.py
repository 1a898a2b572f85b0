"""Promotions at once, and those killed in between."""

import os
import subprocess
import sys

import pytest

from pipeline.errors import ParamsError, TrackingError
from pipeline.production.audit import audit
from pipeline.production.promote import rollback
from pipeline.registry import logged_model, versions
from pipeline.registry.ledger import Action, Entry
from pipeline.registry.ledger_run import Conflict, LedgerRun, ledger_of
from pipeline.tracking.store import connect
from tests.conftest import ROOT
from tests.promotable import ask, here, state, two

__all__ = ["here", "two"]


def test_of_two_at_once_one_wins_and_the_other_says_why(two):
    """Start both as processes; each waits with its entry until the other is as far."""
    code = """
import sys, time
from pathlib import Path
from pipeline.registry import versions
from pipeline.registry.ledger_run import LedgerRun
from pipeline.production.promote import promote
from pipeline.artifacts.datasets import Splits
from pipeline.production.rules import Thresholds
append = LedgerRun.append
def together(self, entry):
    Path(sys.argv[1]).touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return append(self, entry)
LedgerRun.append = together
try:
    promote(versions.find("tiny/2"), Splits(Path("data/processed/tiny")), Thresholds())
    print("won")
except Exception as error:
    print(type(error).__name__, error, getattr(error, "retryable", None))
"""
    both = [start(code, f"ready-{number}") for number in range(2)]
    said = sorted(process.communicate(timeout=120)[0].strip().splitlines()[-1] for process in both)
    assert said[1] == "won"
    assert said[0].startswith(
        "Conflict another process wrote this entry first: entry 2 of the ledger of tiny"
    )
    holders, entries = state()
    assert holders["production"] == 2
    assert len(entries) == 2


def start(code, *arguments):
    root = str(ROOT)
    given = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**given, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )


class Killed(BaseException):
    """Ends what runs as a kill would: nothing handles it."""


def killed_at(monkeypatch, place, name, number):
    """Let the call of a function with this number, counted from 1, end everything."""
    original, calls = getattr(place, name), []

    def call(*arguments, **more):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **more)

    monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize(
    ("where", "name", "number", "written"),
    [
        ("ledger", "keep_decision", 1, False),
        ("ledger", "append", 1, False),
        ("registry", "set_alias", 1, True),
        ("registry", "set_alias", 2, True),
        ("ledger", "mark_done", 1, True),
    ],
)
@pytest.mark.parametrize("follow", ["audit", "promote", "rollback"])
def test_killed_in_between_the_next_call_finishes(
    two, monkeypatch, where, name, number, written, follow
):

    with monkeypatch.context() as patch:
        killed_at(patch, LedgerRun if where == "ledger" else versions, name, number)
        with pytest.raises(Killed):
            ask(2, two)
    assert versions.alias_holders("tiny")["production"] in (1, 2), "both have passed the gate"
    if follow == "audit":
        assert audit([]) == []
        assert state()[0].get("production") == (2 if written else 1)
    elif follow == "promote":
        assert ask(2, two).action == ("nothing" if written else "promoted")
        assert state()[0] == {"challenger": 2, "production": 2, "previous": 1}
    elif written:
        assert rollback("tiny", None, "back").version == 1
        assert state()[0] == {"challenger": 2, "production": 1}
    else:
        with pytest.raises(ParamsError, match="nothing was in production before"):
            rollback("tiny", None, "back")


@pytest.mark.parametrize(
    ("name", "number"),
    [("log_model", 1), ("create_version", 1), ("set_alias", 1), ("set_alias", 2)],
)
def test_killed_while_registering_the_next_call_finishes(here, monkeypatch, name, number):
    with monkeypatch.context() as patch:
        place = logged_model if name == "log_model" else versions
        killed_at(patch, place, name, number)
        with pytest.raises(Killed):
            here.add("dense", auto_promote=True)
    made = here.add("dense", auto_promote=True)
    assert (made.version, made.aliases) == (2, ("challenger", "production"))
    assert len(connect().search_model_versions("name = 'tiny'")) == 2
    assert audit([]) == []
    experiment = connect().get_experiment_by_name("tiny")
    logged = connect().search_logged_models([experiment.experiment_id])
    assert len([m for m in logged if m.source_run_id == made.run_id]) == 1


def test_an_entry_is_never_written_over(here):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]
    with pytest.raises(Conflict, match="another process wrote this entry first"):
        ledger.append(first.model_copy(update={"key": "other"}))
    ledger.append(first)  # the same again: the answer was lost on the way
    assert ledger.entries() == (first,)


def test_a_refusal_of_somebody_else_does_not_stop_a_promotion(two, monkeypatch):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]

    append = LedgerRun.append
    first_time = iter([True])

    def late(self, entry: Entry):
        if next(first_time, False):
            append(
                self, first.model_copy(update={"sequence": 2, "key": "r", "action": Action.REFUSED})
            )
        append(self, entry)

    monkeypatch.setattr(LedgerRun, "append", late)
    assert ask(2, two).entry.sequence == 3


def test_a_run_whose_rival_promotes_first_asks_the_gate_again(two, monkeypatch):
    ledger = ledger_of("tiny")
    first = ledger.entries()[0]

    append = LedgerRun.append
    first_time = iter([True])

    def late(self, entry: Entry):
        if next(first_time, False):
            rival = {"sequence": 2, "key": "r", "version": 2, "previous": 1}
            append(self, first.model_copy(update=rival))
        append(self, entry)

    monkeypatch.setattr(LedgerRun, "append", late)
    assert two.add("reseed", auto_promote=True).version == 3, "it would pass against version 1"
    last = ledger.entries()[-1]
    assert (last.sequence, last.action, last.version, last.previous) == (3, "refused", 3, 2)


def test_a_deleted_ledger_is_said(here):
    connect().delete_run(ledger_of("tiny").run_id)
    with pytest.raises(TrackingError, match="mlflow runs restore --run-id"):
        audit([])
