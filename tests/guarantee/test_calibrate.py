"""The threshold of a guarantee: what is promised holds, and no image is refused in vain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.artifacts.models import Evaluation
from pipeline.errors import ParamsError
from pipeline.guarantee.calibrate import (
    fewest_images,
    least_error,
    mistakes_allowed,
    threshold,
    upper_quantile,
)
from pipeline.workspace import Workspace

errors = st.floats(0.001, 0.5)
confidences = st.floats(0.5, 0.999)


@given(errors, confidences, st.integers(1, 3000))
def test_as_many_mistakes_are_allowed_as_prove_the_error(error, confidence, images):
    allowed = mistakes_allowed(images, error, confidence)
    assert allowed == -1 or binom.cdf(allowed, images, error) <= 1 - confidence
    assert binom.cdf(allowed + 1, images, error) > 1 - confidence
    assert (allowed >= 0) == (images >= fewest_images(error, confidence))
    assert mistakes_allowed(images, least_error(images, confidence) + 1e-9, confidence) >= 0


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=30), errors)
def test_the_threshold_is_the_lowest_that_is_allowed(images, error):
    best = np.array([number / 20 for number, _ in images])
    right = np.array([hit for _, hit in images])
    allowed = mistakes_allowed(len(best), error, 0.9)
    if allowed < 0:
        with pytest.raises(ParamsError, match="at least"):
            threshold(best, right, error, 0.9)
        return
    above = threshold(best, right, error, 0.9)
    assert ((best > above) & ~right).sum() <= allowed
    lower = above - 1 / 20
    assert above == 0 or ((best > lower) & ~right).sum() > allowed


def test_too_few_images_are_told_how_many_are_needed():
    with pytest.raises(ParamsError, match=r"298 calibration .* at least 299 .* --error 0\.011"):
        threshold(np.ones(298), np.ones(298, np.bool_), 0.01, 0.95)
    assert threshold(np.ones(299), np.ones(299, np.bool_), 0.01, 0.95) == 0


@pytest.mark.parametrize("digits", [16, 1])
def test_it_fails_no_more_often_than_it_says(digits):
    """With known risk: an image of confidence u is wrong with a probability of (1 - u) / 2."""
    rng, draws, error, confidence = np.random.default_rng(0), 400, 0.05, 0.9
    risks = []
    for _ in range(draws):
        drawn = rng.random(500)
        right = rng.random(500) >= (1 - drawn) / 2
        # With one digit many images have the same confidence.
        best = np.round(drawn, digits)
        above = threshold(best, right, error, confidence)
        start = above if digits > 1 else min(np.floor(above * 10 + 0.501) / 10 + 0.05, 1)
        risks.append((1 - start) ** 2 / 4)
    failed = int((np.array(risks) > error).sum())
    assert binomtest(failed, draws, 1 - confidence, alternative="greater").pvalue > 0.001
    assert np.mean(risks) > 0.4 * error, "it answers as often as it may"


def test_it_holds_on_twenty_random_halves_of_digits(reproduced):
    workspace, error, confidence = Workspace("digits", reproduced), 0.02, 0.95
    y = np.array(workspace.splits.y("test"))
    rng, refused, wrong, asked, answered = np.random.default_rng(1), 0, 0, 0, 0
    for split in range(20):
        name = ("dense", "cnn")[split % 2]
        evaluation = Evaluation(reproduced / "reports" / "digits" / "evaluation" / name)
        best = evaluation.probabilities.max(axis=1)
        right = evaluation.probabilities.argmax(axis=1) == y
        order = rng.permutation(len(y))
        half, other = order[: len(y) // 2], order[len(y) // 2 :]
        sure = best[other] > threshold(best[half], right[half], error, confidence)
        mistakes = int((sure & ~right[other]).sum())
        test = binomtest(mistakes, len(other), error, alternative="greater")
        refused += test.pvalue < 0.05
        wrong, asked, answered = wrong + mistakes, asked + len(other), answered + int(sure.sum())
    assert binomtest(int(refused), 20, 1 - confidence, alternative="greater").pvalue > 0.01
    assert binomtest(wrong, asked, error, alternative="greater").pvalue > 0.01
    assert answered / asked > 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.floats(0.005, 0.5))
def test_few_images_like_these_are_farther(distances, share):
    limit = upper_quantile(np.array(distances), share)
    beyond = sum(distance > limit for distance in distances)
    assert beyond <= share * (len(distances) + 1)
    assert limit in distances
