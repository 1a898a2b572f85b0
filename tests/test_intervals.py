import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from pipeline.evaluation import metrics
from pipeline.evaluation.intervals import (
    add_intervals,
    bootstrap_intervals,
    lowest_interval,
    share_interval,
)

NAMES = ("ant", "bee", "cat", "dog")
METRICS = {"precision", "recall", "f1", "calibration_error", "loss"}


def predictions(n, seed=0, num_classes=4, skill=2.0, sharpness=1.0):
    """Draw labels and what a model says of them; with a sharpness of 1 it is calibrated."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, num_classes, n)
    seen = rng.normal(size=(n, num_classes))
    seen[np.arange(n), y] += skill
    scores = np.exp(sharpness * skill * seen)
    return y, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def summary_of(y, probabilities):
    names = NAMES[: probabilities.shape[1]]
    return add_intervals(metrics.summarize(y, probabilities, names), y, probabilities)


def test_a_share_has_wilsons_interval():
    assert share_interval(np.repeat([True, False], [90, 10])) == pytest.approx(
        (0.8256, 0.9448), abs=1e-4
    )
    low, high = share_interval(np.ones(10, bool))
    assert low == pytest.approx(0.7225, abs=1e-4)
    assert high == 1
    assert share_interval(np.ones(0, bool)) == (0, 1)


def test_shares_of_images_have_it_in_the_summary():
    y, probabilities = predictions(200)
    summary = summary_of(y, probabilities)
    right = probabilities.argmax(axis=1) == y
    in_top = metrics.in_top(y, probabilities, 3)
    for name, hits in (("accuracy", right), ("top_3_accuracy", in_top)):
        assert (summary[f"{name}_low"], summary[f"{name}_high"]) == share_interval(hits)
        assert summary[f"{name}_low"] < hits.mean() < summary[f"{name}_high"]
    bee = summary["classes"]["bee"]
    assert (bee["recall_low"], bee["recall_high"]) == share_interval(right[y == 1])
    assert set(bee) == {"precision", "recall", "recall_low", "recall_high", "f1", "support"}
    names = METRICS | {"recall_lowest"}
    assert {f"{name}_{end}" for name in names for end in ("low", "high")} < set(summary)


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


def test_nothing_that_was_measured_changes():
    y, probabilities = predictions(50)
    plain = metrics.summarize(y, probabilities, NAMES)
    summary = summary_of(y, probabilities)
    assert {key: summary[key] for key in plain if key != "classes"} == {
        key: value for key, value in plain.items() if key != "classes"
    }
    for name, row in plain["classes"].items():
        assert row.items() <= summary["classes"][name].items()


def test_means_have_the_percentiles_of_the_bootstrap():
    y, probabilities = predictions(120)
    found = bootstrap_intervals(y, probabilities)

    def of(name, rows):
        rows = rows.astype(int)
        return metrics.summarize(y[rows], probabilities[rows], NAMES)[name]

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
    names = tuple(map(str, range(num_classes)))
    y, probabilities = predictions(200_000, 1, **kind)
    truth = metrics.summarize(y, probabilities, names)
    found = [bootstrap_intervals(*predictions(n, seed, **kind)) for seed in range(2, 42)]
    for name in METRICS:
        held = [low <= truth[name] <= high for low, high in (row[name] for row in found)]
        assert np.mean(held) >= least, name


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 4), st.integers(0, 99))
def test_they_hold_what_was_measured_and_stay_in_range(n, num_classes, seed):
    y, probabilities = predictions(n, seed, num_classes)
    summary = summary_of(y, probabilities)
    lows = [key for key in summary if key.endswith("_low")]
    assert "accuracy_low" in lows
    for key in lows:
        name = key.removesuffix("_low")
        low, value, high = summary[key], summary[name], summary[f"{name}_high"]
        assert 0 <= low <= value + 1e-9, name
        assert value <= high + 1e-9, name
        assert high <= 1 or name == "loss", name


def test_equal_predictions_have_equal_intervals():
    y, probabilities = predictions(80)
    assert bootstrap_intervals(y, probabilities) == bootstrap_intervals(y, probabilities)
    assert bootstrap_intervals(y, probabilities) != bootstrap_intervals(y, probabilities, seed=1)


def test_more_images_say_more():
    few, many = (bootstrap_intervals(*predictions(n)) for n in (100, 2000))
    for name in METRICS:
        assert np.ptp(many[name]) < np.ptp(few[name])


def test_a_model_without_a_mistake_has_no_interval_that_would_be_a_point():
    y = np.arange(20) % 4
    probabilities = np.eye(4, dtype=np.float32)[y] * 0.8 + 0.05
    summary = summary_of(y, probabilities)
    assert (summary["f1"], summary["recall_lowest"]) == (1, 1)
    assert "f1_low" not in summary
    assert summary["accuracy_low"] < 0.9
    assert summary["recall_lowest_low"] < 0.7
    assert summary["classes"]["bee"]["recall_low"] < 0.7


def test_a_class_without_images_counts_as_in_the_metrics():
    y, probabilities = predictions(60, num_classes=4)
    y[y == 3] = 0
    summary = summary_of(y, probabilities)
    assert summary["recall_low"] < summary["recall"] < 0.75
    assert summary["recall_high"] <= 0.75
    dog = summary["classes"]["dog"]
    assert (dog["recall_low"], dog["recall_high"]) == (0, 1)


def test_ten_thousand_images_cost_little():
    y, probabilities = predictions(10_000, num_classes=10)
    start = time.process_time()
    bootstrap_intervals(y, probabilities)
    assert time.process_time() - start < 2
