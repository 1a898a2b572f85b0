"""How often the same test images were asked, counted in a real ledger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.files import write_array
from pipeline.production.decision import decide
from pipeline.production.questions import times_asked
from pipeline.production.rules import Thresholds
from pipeline.registry.ledger import Question
from pipeline.registry.ledger_run import ledger_of
from tests.promotable import ask, here, run, state, two
from tests.scored import candidate, case, incumbent, rights

__all__ = ["here", "two"]


def asked(outcome):
    images = outcome.decision.images
    return images.asked, images.fresh


def test_every_pair_of_versions_is_one_question(two):
    before = state()
    assert asked(ask(2, two, dry_run=True)) == (1, 32)
    assert state() == before, "a dry run only counts"
    assert asked(ask(2, two)) == (1, 32), "the same question again"
    two.add("reseed")
    assert asked(ask(3, two)) == (2, 0), "register has asked already"
    limited = ask(1, two, Thresholds(max_questions=2), dry_run=True)
    assert asked(limited) == (3, 0)
    assert "questions" in limited.decision.failed
    assert any(
        "asked 3 times on these images, and 2 is" in row for row in limited.decision.failures
    )
    (answer,) = (row for row in limited.decision.answers if row.name == "questions")
    assert (answer.value, answer.limit) == (3, 2)
    shown = " ".join(run("promote", "tiny", "3", "--dry-run").stdout.split())
    assert "on these images; were no version better, the chance of at least one" in shown
    assert "at most 14.3%" in shown
    pairs = [(row.candidate, row.incumbent) for row in ledger_of("tiny").questions()]
    assert sorted(pairs) == [(1, 2), (2, 1), (3, 2)]


def test_images_that_nobody_was_asked_about_are_fresh(two):
    ask(2, two, dry_run=True)
    (question,) = ledger_of("tiny").questions()
    others = question._replace(candidate=9)
    ledger_of("tiny").record_question(others, np.array([], np.uint64), new=False)
    assert asked(ask(2, two, dry_run=True)) == (2, 0)
    contents = np.array(two.splits.contents("test"))
    contents[:12] = np.arange(12)  # 12 other images
    write_array(two.splits.path / "content_test.npy", contents)
    outcome = ask(2, two, dry_run=True)
    # The same two versions have answered for the 20 others before.
    assert asked(outcome) == (2, 12)
    assert any("(the median; 12 for the first time)" in note for note in outcome.decision.notes)
    contents[:17] = np.arange(100, 117)
    write_array(two.splits.path / "content_test.npy", contents)
    assert asked(ask(2, two, dry_run=True)) == (1, 17)


def test_the_first_version_is_compared_with_none(here):
    assert ledger_of("tiny").questions() == ()


@pytest.mark.parametrize(("times", "chance"), [(1, "5%"), (2, "9.75%"), (7, "30.2%")])
def test_the_chance_grows_with_each_question(times, chance):
    old, new = incumbent(rights(100, range(20))), candidate(rights(100, []))
    decision = decide(case(new, old, asked=times, fresh=0), Thresholds())
    assert decision.notes[-1].endswith(f"promotion so far would be at most {chance}")


sets = st.sets(st.integers(0, 30), min_size=1)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), sets), min_size=1, max_size=12))
def test_an_image_counts_the_pairs_that_it_was_asked_about(rows):
    asked = [Question(new, old, str(number)) for number, (new, old, _) in enumerate(rows)]
    stored = {str(number): np.array([*row[2]], np.uint64) for number, row in enumerate(rows)}
    images = np.arange(32, dtype=np.uint64)
    expected = [
        len({(new, old) for new, old, some in rows if image in some}) for image in range(32)
    ]
    assert times_asked(images, asked, stored).tolist() == expected
