"""The audit of aliases and files against the ledger."""

import pytest

from pipeline.errors import TrackingError
from pipeline.production.audit import audit
from pipeline.registry.ledger_run import ledger_of
from pipeline.tracking.store import connect
from tests.promotable import ask, files_of, here, state, two

__all__ = ["here", "two"]


def test_an_alias_moved_by_hand_is_found_and_put_back(two):
    assert audit([]) == []
    connect().set_registered_model_alias("tiny", "production", "2")
    found = audit([])
    assert [(f.alias, f.holder, f.ledger) for f in found] == [("production", 2, 1)]
    with pytest.raises(TrackingError, match="pipeline audit tiny --restore"):
        ask(2, two)
    assert state()[0]["production"] == 2, "looking changes nothing"
    audit(["tiny"], restore=True, who="somebody")
    holders, entries = state()
    assert holders == {"challenger": 2, "production": 1}
    assert (entries[-1].action, entries[-1].version) == ("restored", 1)
    assert "version 2; the ledger says version 1" in entries[-1].reason
    assert audit([]) == []


def test_an_alias_taken_away_and_one_put_in_are_found(two):
    client = connect()
    client.delete_registered_model_alias("tiny", "production")
    client.set_registered_model_alias("tiny", "previous", "2")
    assert {(f.alias, f.holder, f.ledger) for f in audit([])} == {
        ("production", None, 1),
        ("previous", 2, None),
    }
    audit([], restore=True)
    assert state()[0] == {"challenger": 2, "production": 1}


def test_a_model_that_nobody_promoted_is_found(here):
    client = connect()
    client.create_registered_model("foreign")
    source = client.get_model_version("tiny", "1").source
    client.create_model_version("foreign", source)
    assert audit(["foreign"]) == []
    client.set_registered_model_alias("foreign", "production", "1")
    assert [(f.alias, f.holder, f.ledger) for f in audit(["foreign"])] == [("production", 1, None)]


def test_damage_is_found(here):
    with (files_of(1) / "model.keras").open("ab") as file:
        file.write(b"x")
    assert ["is not what was registered" in f.message for f in audit([])] == [True]
    connect().delete_model_version("tiny", "1")
    messages = [f.message for f in audit([], restore=False)]
    assert any("no model tiny/1" in text for text in messages)
    before = ledger_of("tiny").entries()
    with pytest.raises(TrackingError, match="no model tiny/1"):
        audit([], restore=True)
    assert ledger_of("tiny").entries() == before
