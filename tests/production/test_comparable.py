"""A version in production that knows other classes, or takes other images, than those here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.models import TrainedModel
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import load_litert
from pipeline.production.comparable import differing_classes, listed
from pipeline.production.decision import decide
from pipeline.production.rules import Thresholds
from tests.promotable import ask, files_of, two
from tests.scored import candidate, case, incumbent, rights

__all__ = ["two"]


def as_if(number, **changes):
    """Say something else of a version than it was trained with."""
    run = TrainedModel(files_of(number)).run
    run.model_copy(update=changes).save(files_of(number) / "run.json")


def allowed(what):
    return Thresholds(incomparable=what)


def answer(decision, name):
    return next(answer for answer in decision.answers if answer.name == name)


def test_a_renamed_class_is_named_and_the_others_are_compared_where_that_is_allowed(two):
    as_if(1, class_names=("bright", "dark", "east", "left $"))
    refused = ask(2, two, dry_run=True).decision
    assert refused.failed == ("comparable",)
    (said,) = refused.failures
    assert "version 1 cannot be scored again: 1 new: right; 1 gone: east; as many are new" in said
    assert "promotion.incomparable says what is allowed then, now: refuse" in said
    decision = ask(2, two, allowed("common_classes"), dry_run=True).decision
    y = np.array(two.splits.y("test"))
    common = y != 3
    assert (decision.images.left, decision.images.compared) == (32, common.sum())
    asked = load_litert(TrainedModel(files_of(1))).probabilities(two.splits.x("test"))
    # Its classes are in another order; the third is none that is here.
    old = (np.array([1, 0, -1, 2])[asked.argmax(axis=1)] == y)[common].mean()
    assert f"against {old:.4f} of version 1" in answer(decision, "not_worse").message
    assert any("on images of the classes in common: 1 new: r" in text for text in decision.notes)
    # What the floors say is of all classes.
    asked = load_litert(TrainedModel(files_of(2))).probabilities(two.splits.x("test"))
    assert answer(decision, "accuracy").value == (asked.argmax(axis=1) == y).mean()


def test_classes_in_another_order_are_the_same(two):
    before = answer(ask(2, two, dry_run=True).decision, "not_worse").message
    names = TrainedModel(files_of(1)).run.class_names
    as_if(1, class_names=names[::-1])
    turned = load_litert(TrainedModel(files_of(1))).probabilities(two.splits.x("test"))[:, ::-1]
    old = (turned.argmax(axis=1) == two.splits.y("test")).mean()
    decision = ask(2, two, dry_run=True).decision
    assert decision.images.compared is None
    assert f"against {old:.4f} of version 1" in answer(decision, "not_worse").message != before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fit": "crop"}, "its images were resized by fit: crop, those here by fit: stretch"),
        (
            {"image_shape": (9, 8, 3)},
            "it takes images of 9x8 in colour, those here are 8x8 in gray",
        ),
    ],
)
def test_other_images_are_not_compared(two, changes, words):
    as_if(1, **changes)
    decision = ask(2, two, allowed("common_classes"), dry_run=True).decision
    assert decision.failed == ("comparable",)
    assert words in decision.failures[0]
    decision = ask(2, two, allowed("allow"), dry_run=True).decision
    assert decision.passed
    assert {"better", "not_worse", "classes"}.isdisjoint(row.name for row in decision.answers)
    assert any(f"which promotion.incomparable allows: {words}" in text for text in decision.notes)
    as_if(2, **changes)
    with pytest.raises(ArtifactError, match=f"tiny/2 cannot be scored on .*{words}"):
        ask(2, two)


def test_classes_of_which_none_is_known_are_not_compared(two):
    as_if(1, class_names=("a", "b", "c", "d"))
    decision = ask(2, two, allowed("common_classes"), dry_run=True).decision
    assert "no class in common: 4 new: dark, bright, left $, right; 4 gone: a" in "".join(
        decision.failures
    )
    assert ask(2, two, allowed("allow"), dry_run=True).decision.passed
    as_if(2, class_names=("a", "b", "c", "d"))
    with pytest.raises(ArtifactError, match=r"tiny/2 knows other classes than .* 4 new: dark"):
        ask(2, two)


def test_a_broken_incumbent_is_not_what_is_allowed(two):
    (files_of(1) / "model.keras").unlink()
    decision = ask(2, two, allowed("allow"), dry_run=True).decision
    assert decision.failed == ("comparable",)
    assert "promotion.incomparable" not in decision.failures[0]


def test_only_images_of_common_classes_count_in_the_comparison():
    new = candidate(rights(100, range(50, 100)))  # cats all right, dogs all wrong
    common = np.arange(100) < 50
    old = incumbent(rights(100, range(20)))
    scored = old.scored
    assert scored is not None
    cats = type(scored)(**vars(scored) | {"right": scored.right[:50], "recalls": {"cat": 0.6}})
    compared = type(old)(1, cats, "1 new: dog", True, common)
    decision = decide(case(new, compared, compared=50), allowed("common_classes"))
    assert decision.passed
    assert "accuracy 1.0000 against 0.6000" in answer(decision, "not_worse").message
    few = decide(case(new, compared, compared=19), allowed("common_classes"))
    assert few.failed == ("unseen_images",)


names = st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=9)


@given(names, names)
def test_what_differs_between_classes(old, new):
    text = differing_classes(old, new)
    assert (text == "") == (set(old) == set(new))
    for word, more in (("new", set(new) - set(old)), ("gone", set(old) - set(new))):
        assert (f"{len(more)} {word}: " in text) == bool(more)


def test_many_names_are_cut():
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
