import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from pipeline.evaluation.intervals import (
    bootstrap_intervals,
    classes,
    flat,
    intervals,
)
from pipeline.evaluation.measures import by_class, in_top
from pipeline.evaluation.metrics import scores
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.shares import lowest_interval, share_interval

NAMES = ("ant", "bee", "cat", "dog")
BOOTSTRAPPED = {"precision", "recall", "f1", "calibration_error", "loss"}


def predictions(n, seed=0, num_classes=4, skill=2.0, sharpness=1.0):
    """Draw labels and what a model says of them; with a sharpness of 1 it is calibrated."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, num_classes, n)
    seen = rng.normal(size=(n, num_classes))
    seen[np.arange(n), y] += skill
    odds = np.exp(sharpness * skill * seen)
    names = tuple(f"class {label}" for label in range(num_classes))
    return Predictions(names, y, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))


def test_a_share_has_wilsons_interval():
    assert share_interval(np.repeat([True, False], [90, 10])) == pytest.approx(
        (0.8256, 0.9448), abs=1e-4
    )
    low, high = share_interval(np.ones(10, bool))
    assert low == pytest.approx(0.7225, abs=1e-4)
    assert high == 1
    assert share_interval(np.ones(0, bool)) == (0, 1)


def test_shares_of_images_have_it_in_the_summary():
    drawn = predictions(200)
    found = intervals(drawn)
    for name, hits in (("accuracy", drawn.right), ("top_3_accuracy", in_top(drawn, 3))):
        assert found[name] == share_interval(hits)
        assert found[name][0] < hits.mean() < found[name][1]
    row = classes(drawn)["class 1"]
    assert (row["recall_low"], row["recall_high"]) == share_interval(drawn.right[drawn.y == 1])
    assert row.items() > by_class(drawn)["class 1"].items()
    assert set(found) == BOOTSTRAPPED | {"accuracy", "top_3_accuracy", "recall_lowest"}
    assert "top_2_accuracy" in intervals(predictions(50, num_classes=3))


def test_an_interval_is_two_numbers_in_the_file():
    assert flat({"f1": (0.1, 0.2)}) == {"f1_low": 0.1, "f1_high": 0.2}


@pytest.mark.parametrize("shares", [[0.9] * 10, [0.7, 0.9, 0.9, 0.99], [0.97] * 9 + [0.9]])
def test_the_lowest_share_is_in_its_interval(shares):
    rng = np.random.default_rng(0)
    found = [lowest_interval([rng.random(50) < share for share in shares]) for _ in range(200)]
    assert np.mean([low <= min(shares) <= high for low, high in found]) > 0.93


def test_of_one_group_the_lowest_is_its_own():
    low, high = lowest_interval([np.arange(30) > 0])  # 29 of 30
    # The ends are where one mistake or less, and one or more, have a chance of one in forty.
    assert (low, high) == pytest.approx(tuple(binomtest(29, 30).proportion_ci(0.95)))
    assert low**30 + 30 * low**29 * (1 - low) == pytest.approx(0.025, abs=1e-6)
    assert 1 - high**30 == pytest.approx(0.025, abs=1e-6)
    assert lowest_interval([np.zeros(2, bool), np.ones(9, bool)])[0] == 0
    assert lowest_interval([np.ones(9, bool)])[1] == 1


def test_means_have_the_percentiles_of_the_bootstrap():
    drawn = predictions(120)
    found = bootstrap_intervals(drawn)

    def of(name, rows):
        rows = rows.astype(int)
        some = Predictions(drawn.class_names, drawn.y[rows], drawn.probabilities[rows])
        return scores(some)[name]

    for name in ("precision", "recall", "f1", "loss"):
        expected = bootstrap(
            (np.arange(120),),
            lambda rows, name=name: of(name, rows),
            n_resamples=300,
            method="percentile",
            vectorized=False,
            rng=1,
        ).confidence_interval
        assert found[name] == pytest.approx(tuple(expected), rel=0.05)


@pytest.mark.parametrize(
    ("n", "num_classes", "sharpness", "least"),
    [(360, 10, 1.6, 0.8), (1000, 4, 1.6, 0.85)],
)
def test_intervals_hold_the_true_values(n, num_classes, sharpness, least):
    kind = {"num_classes": num_classes, "skill": 3.0, "sharpness": sharpness}
    truth = scores(predictions(200_000, 1, **kind))
    found = [bootstrap_intervals(predictions(n, seed, **kind)) for seed in range(2, 42)]
    for name in BOOTSTRAPPED:
        held = [low <= truth[name] <= high for low, high in (row[name] for row in found)]
        assert np.mean(held) >= least, name


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 99))
def test_they_hold_what_was_measured_and_stay_in_range(n, num_classes, seed):
    drawn = predictions(n, seed, num_classes)
    found, measured = intervals(drawn), scores(drawn)
    assert "accuracy" in found
    for name, (low, high) in found.items():
        value = measured[name]
        assert 0 <= low <= value + 1e-9, name
        assert value <= high + 1e-9, name
        assert high <= 1 or name == "loss", name


def test_equal_predictions_have_equal_intervals():
    drawn = predictions(80)
    assert bootstrap_intervals(drawn) == bootstrap_intervals(drawn)
    assert bootstrap_intervals(drawn) != bootstrap_intervals(drawn, seed=1)


def test_more_images_say_more():
    few, many = (bootstrap_intervals(predictions(n)) for n in (100, 2000))
    for name in BOOTSTRAPPED:
        assert np.ptp(many[name]) < np.ptp(few[name])


def test_a_model_without_a_mistake_has_no_interval_that_would_be_a_point():
    y = np.arange(20) % 4
    probabilities = np.eye(4, dtype=np.float32)[y] * 0.8 + 0.05
    right = Predictions(NAMES, y, probabilities)
    measured, found = scores(right), intervals(right)
    assert (measured["f1"], measured["recall_lowest"]) == (1, 1)
    assert "f1" not in found
    assert found["accuracy"][0] < 0.9
    assert found["recall_lowest"][0] < 0.7
    assert classes(right)["bee"]["recall_low"] < 0.7


def test_a_class_without_images_counts_as_in_the_metrics():
    drawn = predictions(60, num_classes=4)
    drawn.y[drawn.y == 3] = 0
    low, high = bootstrap_intervals(drawn)["recall"]
    assert low < scores(drawn)["recall"] < 0.75
    assert high <= 0.75
    dog = classes(drawn)["class 3"]
    assert (dog["recall_low"], dog["recall_high"]) == (0, 1)


def test_ten_thousand_images_cost_little():
    drawn = predictions(10_000, num_classes=10)
    start = time.process_time()
    bootstrap_intervals(drawn)
    assert time.process_time() - start < 2
