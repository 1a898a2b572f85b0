"""The gate's rules, on made-up predictions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ParamsError
from pipeline.production.decision import Decision, Incumbent, decide
from pipeline.production.floors import check_floors
from pipeline.production.rules import Thresholds
from tests.scored import MD5, candidate, case, incumbent, rights


def ask(new, old=None, thresholds=None, **images) -> Decision:
    return decide(case(new, old, **images), thresholds or Thresholds())


def failed(decision):
    return set(decision.failed)


def test_the_first_that_meets_the_floors_passes():
    floors = Thresholds(floors={"accuracy": 0.9})
    decision = ask(candidate(rights(100, range(10))), None, floors)
    assert decision.passed
    assert decision.failures == ()
    assert (decision.candidate, decision.incumbent, decision.test_md5) == (2, None, MD5)


@pytest.mark.parametrize(
    ("floors", "metrics", "name"),
    [
        ({"accuracy": 0.91}, {}, "accuracy"),
        ({"recall": 0.85}, {}, "recall"),
        ({"calibration_error": 0.1}, {"calibration_error": 0.2}, "calibration_error"),
        ({"latency_p95_ms": 5}, {"latency_p95_ms": 6}, "latency_p95_ms"),
        ({"size_mb": 1}, {"size_mb": 1.5}, "size_mb"),
        ({"slice_accuracy": 0.9}, {"slice_accuracy": 0.8}, "slice_accuracy"),
        ({"corruption_accuracy": 0.6}, {"corruption_accuracy": 0.5}, "corruption_accuracy"),
    ],
)
def test_each_floor_holds_back_by_itself(floors, metrics, name):
    new = candidate(rights(100, range(10)), metrics)  # all ten are cats: 90%, and 80% of the cats
    decision = ask(new, None, Thresholds(floors=floors))
    assert failed(decision) == {name}
    answer = next(answer for answer in decision.answers if answer.name == name)
    assert answer.limit == floors[name]
    assert f"{floors[name]:g}" in answer.message


def test_the_class_with_the_lowest_recall_is_named():
    decision = ask(candidate(rights(100, range(10))), None, Thresholds(floors={"recall": 0.9}))
    assert "(cat) is 0.8; at least 0.9 is required" in decision.failures[0]


def test_the_worst_slice_is_named():
    new = candidate(rights(100, []), {"slice_accuracy": 0.7}, worst_slice="scanner: old")
    decision = ask(new, None, Thresholds(floors={"slice_accuracy": 0.8}))
    assert decision.failures == (
        "accuracy on the worst slice (scanner: old) is 0.7; at least 0.8 is required",
    )


def test_a_metric_that_an_older_version_lacks_does_not_reach_its_floor():
    new = candidate(rights(100, []))
    known = {key: value for key, value in new.metrics.items() if key != "size_mb"}
    decision = ask(replace(new, metrics=known), None, Thresholds(floors={"size_mb": 9}))
    assert "is unknown; at most 9 is required" in decision.failures[0]


@pytest.mark.parametrize(
    ("floors", "words"),
    [
        ({"acuracy": 0.9}, r"promotion.floors.acuracy: unknown metric; .*mean accuracy\?"),
        ({"recall": 1.1}, "promotion.floors.recall: received 1.1; allowed: from 0 to 1, or null"),
        ({"size_mb": 0}, "promotion.floors.size_mb: received 0; allowed: more than 0, or null"),
    ],
)
def test_a_floor_that_cannot_be_is_refused(floors, words):
    with pytest.raises(ParamsError, match=words):
        check_floors(Thresholds(floors=floors))
    check_floors(Thresholds(floors={"accuracy": 1, "size_mb": 100, "calibration_error": None}))


def test_the_first_stage_refuses_a_floor_of_an_unknown_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = "{layers: [flatten], epochs: 1}"
    (tmp_path / "params.yaml").write_text(
        f"dataset: digits\nmodels: [dense]\nrecipes: {{digits: {{dense: {recipe}}}}}\n"
        "promotion: {floors: {acuracy: 0.9}}\n"
    )
    error = CliRunner().invoke(app, ["resolve"]).exception
    assert isinstance(error, ParamsError)
    assert "promotion.floors.acuracy: unknown metric" in str(error)
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("facts", "name", "word"),
    [
        ({"missing": ("the git commit",)}, "lineage", "the git commit"),
        ({"max_difference": 0.01}, "loads", "0.01"),
        ({"max_difference": float("nan")}, "loads", "nan"),
        ({"validated": False}, "validated", "validation"),
        ({"dirty": True}, "clean", "commit it"),
    ],
)
def test_what_is_not_in_order_holds_back(facts, name, word):
    decision = ask(replace(candidate(rights(100, [])), **facts))
    assert failed(decision) == {name}
    assert word in decision.failures[0]


@pytest.mark.parametrize(("md5", "word"), [("b" * 32, "b" * 32), (None, "unknown")])
def test_another_test_split_is_in_order_where_it_is_known_what_was_seen(md5, word):
    new = replace(candidate(rights(100, [])), test_md5=md5)
    assert ask(new, seen=0).passed
    decision = ask(new, seen=None)
    assert failed(decision) == {"test_set"}
    assert word in decision.failures[0]


def test_too_few_unseen_images_are_a_failure_of_their_own():
    thresholds = Thresholds(min_test_images=80)
    decision = ask(candidate(rights(79, [])), None, thresholds, test=100, seen=21)
    assert failed(decision) == {"unseen_images"}
    assert decision.failures == (
        "too few test images: at least 80 are required; scored on 79 of 100 test images; 21 left "
        "out as seen: version 2 was trained or validated on 21",
    )
    enough = ask(candidate(rights(80, [])), None, thresholds, test=100, seen=20)
    assert enough.passed
    assert "80 of 100 test images; 20 left out as seen" in enough.notes[0]


def test_a_first_version_may_have_few_test_images_and_a_second_one_may_not():
    new = candidate(rights(9, []))
    assert ask(new, test=9, seen=0).passed
    assert "unseen_images" in failed(ask(new, incumbent(rights(9, range(6))), test=9, seen=0))
    assert "unseen_images" in failed(ask(new, test=10, seen=1))


def test_a_class_of_which_no_image_is_left_is_named():
    old, new = incumbent(rights(100, range(20))), candidate(rights(100, []))
    decision = ask(new, old, emptied=("hen", "cow"))
    assert failed(decision) == {"unseen_images"}
    assert "none is left of hen, cow" in decision.failures[0]


def test_what_has_no_record_is_judged_on_all_images_and_that_is_said():
    old, new = incumbent(rights(100, range(20))), candidate(rights(100, []))
    decision = ask(new, old, seen_by_incumbent=None)
    assert decision.passed
    assert "version 1 has no record of its images and may have seen some" in decision.notes[0]
    assert "version 2 was trained or validated on 0" in decision.notes[0]


def test_uncommitted_code_may_be_allowed():
    allowed = Thresholds(allow_dirty=True)
    assert ask(candidate(rights(100, []), dirty=True), None, allowed).passed


def test_better_needs_proof():
    old = incumbent(rights(100, range(0, 40)))
    assert ask(candidate(rights(100, range(0, 20))), old).passed
    # Four more right and none wrong: p = 1/16.
    decision = ask(candidate(rights(100, range(4, 40))), old)
    assert failed(decision) == {"better"}
    assert "p = 0.0625" in decision.failures[0]
    assert ask(candidate(rights(100, range(5, 40))), old).passed  # 1/32


def test_not_worse_is_enough_where_that_is_asked():
    thresholds = Thresholds(better=False, margin=0.02, allowance=1)
    old = incumbent(rights(1000, range(100)))
    assert ask(candidate(rights(1000, range(100))), old, thresholds).passed
    assert ask(candidate(rights(1000, range(105))), old, thresholds).passed
    # The same difference, but among so few images that it may well be more.
    assert failed(ask(candidate(rights(50, [1])), incumbent(rights(50, [])), thresholds)) == {
        "not_worse"
    }


def test_no_class_loses_more_than_its_allowance():
    old = incumbent(rights(200, range(100, 190)))  # cats all right, dogs 10%
    new = candidate(rights(200, range(10)))  # cats 90%, dogs all right
    decision = ask(new, old)
    assert failed(decision) == {"classes"}
    assert "cat loses 0.1000 of 0.05 allowed" in decision.failures[0]
    assert ask(new, old, Thresholds(allowances={"cat": 0.1})).passed
    assert failed(ask(new, old, Thresholds(allowance=0.2, allowances={"cat": 0.05}))) == {"classes"}


def test_a_reseed_is_not_better():
    old = incumbent(rights(100, range(40)), ingredients="same")
    decision = ask(candidate(rights(100, []), ingredients="same"), old)
    assert failed(decision) == {"not_a_reseed"}
    unknown = incumbent(rights(100, range(40)), ingredients=None)
    assert ask(candidate(rights(100, [])), unknown).passed


def test_an_incumbent_that_cannot_be_asked_holds_back():
    decision = ask(candidate(rights(100, [])), Incumbent(7, reason="its file is gone"))
    assert failed(decision) == {"comparable"}
    assert "version 7 cannot be scored again: its file is gone" in decision.failures


def test_a_decision_is_stored_as_it_always_was():
    decision = ask(candidate(rights(100, [1])), incumbent(rights(100, range(40))))
    stored = decision.model_dump(mode="json")
    assert set(stored) == {"candidate", "incumbent", "test_md5", "images", "checks"}
    assert set(stored["checks"][0]) == {"name", "value", "limit", "passed", "message"}
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=60)


@given(answers, st.floats(0.5, 0.999), st.floats(0, 1))
def test_what_passes_is_never_worse_on_the_same_images(pairs, confidence, margin):
    old, new = (np.array(column) for column in zip(*pairs, strict=True))
    thresholds = Thresholds(confidence=confidence, margin=margin, allowance=1)
    decision = ask(candidate(new), incumbent(old), thresholds)
    if decision.passed:
        assert new.mean() > old.mean()


@given(answers)
def test_nobody_is_better_than_himself(pairs):
    right = np.array([pair[0] for pair in pairs])
    assert "better" in failed(ask(candidate(right), incumbent(right)))
