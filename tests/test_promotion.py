"""The gate's rules, on made-up predictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.production.decision import Decision
from pipeline.production.promotion import Candidate, Contender, Incumbent, Scored, best, decide
from pipeline.production.rules import Floors, Rules

MD5 = "a" * 32
CLASSES = ("cat", "dog")


def scored(right, version=1, skill="old", **more):
    """Score images of which the first half are cats."""
    right = np.asarray(right, bool)
    half = len(right) // 2
    recalls = dict(zip(CLASSES, (right[:half].mean(), right[half:].mean()), strict=True))
    return {
        "version": version,
        "right": right,
        "recalls": recalls,
        "skill": skill,
        "test_md5": MD5,
        **more,
    }


def candidate(right, **more):
    return Candidate(**scored(right, **{"version": 2, "skill": "new", **more}))


def incumbent(right, **more):
    return Incumbent(1, Scored(**scored(right, **more)))


def rights(n, wrong):
    """Return n answers of which those are wrong."""
    out = np.ones(n, bool)
    out[list(wrong)] = False
    return out


def ask(new, old=None, rules=None, md5=MD5) -> Decision:
    return decide(new, old, rules or Rules(), md5)


def failed(decision):
    return {check.name for check in decision.checks if not check.passed}


def test_validation_alone_chooses():
    assert best([Contender("a", 1, 0.90), Contender("b", 9, 0.91)]).name == "b"


def test_between_equals_the_smaller_then_the_first_by_name():
    assert best([Contender("a", 200, 0.9), Contender("b", 100, 0.9)]).name == "b"
    assert best([Contender("b", 100, 0.9), Contender("a", 100, 0.9)]).name == "a"


def test_the_first_that_meets_the_floors_passes():
    decision = ask(candidate(rights(100, range(10))), rules=Rules(floors=Floors(accuracy=0.9)))
    assert decision.passed
    assert decision.failures == ()
    assert (decision.candidate, decision.incumbent, decision.test_md5) == (2, None, MD5)


@pytest.mark.parametrize(
    ("floors", "facts", "name"),
    [
        (Floors(accuracy=0.91), {}, "accuracy"),
        (Floors(recall=0.85), {}, "recall"),
        (Floors(calibration_error=0.1), {"calibration_error": 0.2}, "calibration_error"),
        (Floors(latency_p95_ms=5), {"latency_p95_ms": 6}, "latency_p95_ms"),
        (Floors(size_mb=1), {"size_mb": 1.5}, "size_mb"),
    ],
)
def test_each_floor_holds_back_by_itself(floors, facts, name):
    new = candidate(rights(100, range(10)), **facts)  # all ten are cats: 90%, and 80% of the cats
    decision = ask(new, rules=Rules(floors=floors))
    assert failed(decision) == {name}
    check = next(check for check in decision.checks if check.name == name)
    limit = getattr(floors, name)
    assert check.limit == limit
    assert f"{limit:g}" in check.message


@pytest.mark.parametrize(
    ("facts", "name", "word"),
    [
        ({"missing": ("the git commit",)}, "lineage", "the git commit"),
        ({"apart": 0.01}, "loads", "0.01"),
        ({"apart": float("nan")}, "loads", "nan"),
        ({"validated": False}, "validated", "validation"),
        ({"dirty": True}, "clean", "commit it"),
        ({"test_md5": "b" * 32}, "test_set", "b" * 32),
        ({"test_md5": None}, "test_set", "unknown"),
    ],
)
def test_what_is_not_in_order_holds_back(facts, name, word):
    decision = ask(candidate(rights(100, []), **facts))
    assert failed(decision) == {name}
    assert word in decision.failures[0]


def test_uncommitted_code_may_be_allowed():
    assert ask(candidate(rights(100, []), dirty=True), rules=Rules(allow_dirty=True)).passed


def test_better_needs_proof():
    old = incumbent(rights(100, range(0, 40)))
    assert ask(candidate(rights(100, range(0, 20))), old).passed
    # Four more right and none wrong: p = 1/16.
    decision = ask(candidate(rights(100, range(4, 40))), old)
    assert failed(decision) == {"better"}
    assert "p = 0.0625" in decision.failures[0]
    assert ask(candidate(rights(100, range(5, 40))), old).passed  # 1/32


def test_not_worse_is_enough_where_that_is_asked():
    rules = Rules(better=False, margin=0.02, allowance=1)
    old = incumbent(rights(1000, range(100)))
    assert ask(candidate(rights(1000, range(100))), old, rules).passed
    assert ask(candidate(rights(1000, range(105))), old, rules).passed
    # The same difference, but among so few images that it may well be more.
    assert failed(ask(candidate(rights(50, [1])), incumbent(rights(50, [])), rules)) == {
        "not_worse"
    }


def test_no_class_loses_more_than_its_allowance():
    old = incumbent(rights(200, range(100, 190)))  # cats all right, dogs 10%
    new = candidate(rights(200, range(10)))  # cats 90%, dogs all right
    decision = ask(new, old)
    assert failed(decision) == {"classes"}
    assert "cat loses 0.1000 of 0.05 allowed" in decision.failures[0]
    assert ask(new, old, Rules(allowances={"cat": 0.1})).passed
    assert failed(ask(new, old, Rules(allowance=0.2, allowances={"cat": 0.05}))) == {"classes"}


def test_a_reseed_is_not_better():
    old = incumbent(rights(100, range(40)), skill="same")
    decision = ask(candidate(rights(100, []), skill="same"), old)
    assert failed(decision) == {"not_a_reseed"}
    unknown = incumbent(rights(100, range(40)), skill=None)
    assert ask(candidate(rights(100, [])), unknown).passed


def test_an_incumbent_that_cannot_be_asked_holds_back():
    decision = ask(candidate(rights(100, [])), Incumbent(7, reason="its file is gone"))
    assert failed(decision) == {"comparable"}
    assert "version 7 cannot be scored again: its file is gone" in decision.failures


def test_a_decision_survives_json():
    decision = ask(candidate(rights(100, [1])), incumbent(rights(100, range(40))))
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=60)


@given(answers, st.floats(0.5, 0.999), st.floats(0, 1))
def test_what_passes_is_never_worse_on_the_same_images(pairs, confidence, margin):
    old, new = (np.array(column) for column in zip(*pairs, strict=True))
    rules = Rules(confidence=confidence, margin=margin, allowance=1)
    decision = ask(candidate(new), incumbent(old), rules)
    if decision.passed:
        assert new.mean() > old.mean()


@given(answers)
def test_nobody_is_better_than_himself(pairs):
    right = np.array([pair[0] for pair in pairs])
    assert "better" in failed(ask(candidate(right), incumbent(right)))
