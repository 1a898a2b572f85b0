from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from pipeline.evaluation.paired import mcnemar, paired_interval

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


def sides(pairs):
    array = np.array(pairs, dtype=bool)
    return array[:, 0], array[:, 1]


def seen(only_a, only_b, both):
    """Make the right answers of two models from the counts in which they differ."""
    return sides([(True, False)] * only_a + [(False, True)] * only_b + [(True, True)] * both)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (2, 9), (9, 2), (4, 4), (0, 12)])
def test_p_is_that_of_all_ways_to_toss_a_coin(only_a, only_b):
    differing = only_a + only_b
    tosses = product([0, 1], repeat=differing)
    as_many = sum(sum(toss) >= only_b for toss in tosses) / 2**differing
    found = mcnemar(*seen(only_a, only_b, 20))
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_better == pytest.approx(as_many)


def test_p_of_a_textbook_table():
    found = mcnemar(*seen(59, 86, 855))
    expected = sum(comb(145, k) for k in range(86, 146)) / 2**145
    assert found.p_better == pytest.approx(expected)


def test_equal_models_are_not_better():
    right = np.array([True, False, True])
    assert mcnemar(right, right).p_better == 1
    assert paired_interval(right, right, 0.95) == (0, 0)


def test_different_images_are_refused():
    for function in (mcnemar, lambda a, b: paired_interval(a, b, 0.95)):
        with pytest.raises(ValueError, match="cannot be paired"):
            function(np.ones(3, bool), np.ones(1, bool))


def test_the_interval_is_the_bootstrap_of_the_pairs():
    a, b = seen(12, 30, 258)
    difference = b.astype(float) - a
    expected = bootstrap(
        (difference,), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert paired_interval(a, b, 0.95) == pytest.approx(tuple(expected), abs=0.004)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        draws = rng.choice(3, 500, p=[0.04, 0.08, 0.88])
        low, high = paired_interval(draws == 0, draws == 1, 0.9)
        held.append(low <= 0.04 <= high)
    assert 0.85 < np.mean(held) < 0.95


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.floats(0.5, 0.999), st.integers(0, 9))
def test_the_interval_holds_what_was_seen(pairs, confidence, seed):
    a, b = sides(pairs)
    low, high = paired_interval(a, b, confidence, seed)
    difference = b.mean() - a.mean()
    assert -1 <= low <= difference + 1e-9
    assert difference - 1e-9 <= high <= 1
    assert paired_interval(a, b, confidence, seed) == (low, high)


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_swapped_models_swap_the_answer(pairs):
    a, b = sides(pairs)
    one, other = mcnemar(a, b), mcnemar(b, a)
    assert (one.only_a, one.only_b) == (other.only_b, other.only_a)
    assert 0 <= min(one.p_better, other.p_better) <= 1
    # Both tails hold the case that was seen, so together they are more than certain.
    assert one.p_better + other.p_better >= 1 - 1e-9
    low, high = paired_interval(a, b, 0.95)
    mirrored = paired_interval(b, a, 0.95)
    # As close as two times 10,000 draws can agree: neighbouring results differ by up to two images.
    close = 2 / len(a) + 0.2 * np.std(b.astype(float) - a) / np.sqrt(len(a))
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=close)


@given(PAIRS)
def test_one_more_image_that_only_b_has_right_is_more_proof(pairs):
    a, b = sides(pairs)
    more = mcnemar(np.append(a, False), np.append(b, True))
    assert more.p_better <= mcnemar(a, b).p_better
