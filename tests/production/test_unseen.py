"""The gate scores versions on test images that none of them has seen, with real versions."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.files import write_array
from pipeline.artifacts.models import TrainedModel
from pipeline.evaluation.litert import load_litert
from pipeline.production.rules import Thresholds
from pipeline.production.scored_images import unseen
from tests.promotable import ask, files_of, run, two, without_record

__all__ = ["two"]


def test_with(splits, train_rows, test_rows):
    """Make the test split some of its images and some of those that were trained on."""
    arrays = {
        name: np.concatenate([read("train")[train_rows], read("test")[test_rows]])
        for name, read in (("x", splits.x), ("y", splits.y), ("content", splits.contents))
    }
    for name, array in arrays.items():
        write_array(splits.path / f"{name}_test.npy", array)
    info = splits.info
    md5 = {
        f"{name}_test.npy": hashlib.md5((splits.path / f"{name}_test.npy").read_bytes()).hexdigest()
        for name in "xy"
    }
    info = info.model_copy(
        update={"md5": info.md5 | md5, "counts": info.counts | {"test": len(arrays["y"])}}
    )
    info.save(splits.path / "metadata.json")


test_with.__test__ = False  # type: ignore[attr-defined]


def rule(decision, name):
    (answer,) = (answer for answer in decision.answers if answer.name == name)
    return answer


def test_test_images_that_were_trained_on_are_left_out(two):
    rows = np.arange(4, 32)
    alone = ask(2, two, dry_run=True)
    test_with(two.splits, slice(0, 20), rows)
    outcome = ask(2, two, dry_run=True)
    images = outcome.decision.images
    assert (images.test, images.left, images.seen, images.seen_by_incumbent) == (48, 28, 20, 20)
    y, x = two.splits.y("test")[20:], two.splits.x("test")[20:]
    predicted = load_litert(TrainedModel(files_of(2))).probabilities(x).argmax(axis=1)
    assert rule(outcome.decision, "accuracy").value == (predicted == y).mean()
    assert outcome.action == "would pass"
    assert "evaluated on another test split" in rule(outcome.decision, "test_set").message
    assert rule(alone.decision, "unseen_images").value == 32
    shown = run("promote", "tiny", "--dry-run").stdout.replace("\n", " ")
    assert "28 of 48 test images; 20 left out as seen: version 2 was trained or" in shown


def test_where_all_test_images_were_seen_nothing_passes(two):
    test_with(two.splits, slice(0, 30), slice(0, 0))
    outcome = ask(2, two)
    assert outcome.action == "refused"
    assert {"unseen_images", "comparable"} <= set(outcome.decision.failed)
    assert "0 of 30 test images" in "; ".join(outcome.decision.failures)
    floors = Thresholds(floors={"accuracy": 0.1, "recall": 0.1})
    assert {"accuracy", "recall"} <= set(ask(2, two, floors).decision.failed)


def test_a_version_from_before_there_were_records_is_asked_about_all(two):
    without_record(1)
    outcome = ask(2, two)
    assert outcome.action == "promoted"
    assert "version 1 has no record of its images" in outcome.decision.notes[0]
    images = outcome.decision.images
    assert (images.left, images.seen, images.seen_by_incumbent) == (32, 0, None)


labels = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1)


@given(labels, st.booleans(), st.booleans())
def test_left_is_what_none_is_known_to_have_seen(rows, new_known, old_known):
    y, new, old = (np.array(column) for column in zip(*rows, strict=True))
    names = ("a", "b", "c", "d")
    left, images = unseen(y, names, new if new_known else None, old if old_known else None)
    expected = ~((new & new_known) | (old & old_known))
    assert left.tolist() == expected.tolist()
    assert (images.test, images.left) == (len(rows), expected.sum())
    assert images.seen == (new.sum() if new_known else None)
    gone = {names[label] for label in y} - {names[label] for label in y[expected]}
    assert set(images.emptied) == gone
