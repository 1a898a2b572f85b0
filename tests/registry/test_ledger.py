"""What follows from the entries of a ledger."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.registry.ledger import Action, Entry, in_production, standing

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)


def entries(*rows):
    """Return an entry per (action, version), a day apart."""
    out: list[Entry] = []
    for number, (action, version) in enumerate(rows, start=1):
        out.append(
            Entry(
                sequence=number,
                key=str(number),
                action=action,
                previous=standing(out).production,
                version=version,
                who="somebody",
                when=(BEGIN + timedelta(days=number)).isoformat(),
                reason="",
            )
        )
    return out


@pytest.mark.parametrize(
    ("rows", "production", "previous"),
    [
        ([], None, None),
        ([("refused", 1)], None, None),
        ([("promoted", 1)], 1, None),
        ([("promoted", 1), ("refused", 2), ("forced", 3)], 3, 1),
        ([("promoted", 1), ("promoted", 2), ("rolled back", 1)], 1, None),
        ([("promoted", 1), ("promoted", 2), ("promoted", 3), ("rolled back", 2)], 2, 1),
        ([("promoted", 1), ("promoted", 2), ("promoted", 3), ("rolled back", 1)], 1, None),
        ([("promoted", 1), ("promoted", 2), ("rolled back", 1), ("rolled back", 2)], 2, 1),
        ([("promoted", 1), ("restored", 1)], 1, None),
    ],
)
def test_what_is_in_production(rows, production, previous):
    now = standing(entries(*rows))
    assert (now.production, now.previous) == (production, previous)
    assert now.sequence == len(rows)


def test_whoever_was_in_production_may_come_back():
    now = standing(entries(("promoted", 1), ("promoted", 2), ("rolled back", 1), ("refused", 4)))
    assert now.ever == {1, 2}


def test_what_served_on_a_day():
    rows = entries(("promoted", 1), ("refused", 2), ("promoted", 3), ("rolled back", 1))

    def served(day, hours=24):
        begin = datetime(2026, 1, day, tzinfo=UTC)
        return [e.version for e in in_production(rows, begin, begin + timedelta(hours=hours))]

    assert served(1) == []
    assert served(2, hours=1) == []
    assert served(2) == [1]
    assert served(3) == [1]  # what was refused changed nothing
    assert served(4) == [1, 3]
    assert served(5) == [3, 1]
    assert served(20) == [1]


def test_every_action_is_said_in_one_sentence():
    for action in Action:
        assert action.sentence("digits", 3, 2).startswith("digits ")
    assert Action.REFUSED.sentence("digits", 3) == "digits version 3 " + Action.REFUSED.words
    assert Action.FORCED.sentence("digits", 3, 2).endswith("; before: version 2")
