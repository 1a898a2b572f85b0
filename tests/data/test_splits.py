"""splits: an image stays on its side, whatever happens to the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import by_content, stratified
from pipeline.errors import DatasetError

NAMES = ("a", "b", "c")


def chosen(keys, labels, fraction=0.2, salt="test 0"):
    picked = by_content(keys, np.asarray(labels), NAMES, fraction, salt)
    return {key for key, one in zip(keys, picked, strict=True) if one}


@given(st.sets(st.text(), min_size=60, max_size=200), st.data())
def test_an_image_stays_where_it_is_when_others_come_go_and_change(keys, data):
    keys = sorted(keys)
    labels = [number % 3 for number in range(len(keys))]
    before = chosen(keys, labels)
    kept = [key for key in keys if data.draw(st.booleans())]
    more = [f"{key}+" for key in keys]
    relabelled = [*kept, *more]
    after = chosen(relabelled, [data.draw(st.integers(0, 2)) for _ in relabelled])
    moved = (before ^ after) & set(kept)
    # Only where chance would leave a class without an image does one change its side.
    assert len(moved) <= 2 * len(NAMES)


def test_the_share_is_what_was_asked_for_on_average():
    keys = [str(number) for number in range(20_000)]
    assert len(chosen(keys, np.zeros(20_000, int))) == pytest.approx(4000, abs=200)


def test_growth_never_moves_an_image_from_train_to_test():
    keys = [str(number) for number in range(2000)]
    labels = np.arange(2000) % 3
    before = chosen(keys[:40], labels[:40])
    for count in range(41, 2000, 97):
        after = chosen(keys[:count], labels[:count])
        assert not (set(keys[:40]) - before) & after


def test_equal_keys_are_on_one_side_and_every_class_is_on_both():
    keys = [f"patient {number // 5}" for number in range(60)]
    labels = np.arange(60) // 20
    for salt in map(str, range(50)):
        picked = by_content(keys, labels, NAMES, 0.1, salt)
        for key in set(keys):
            assert len({bool(p) for k, p in zip(keys, picked, strict=True) if k == key}) == 1
        for label in range(3):
            assert 0 < picked[labels == label].sum() < 20


def test_a_class_of_one_content_cannot_be_split():
    with pytest.raises(DatasetError, match="class 'b' has 2 images, all of the same content"):
        chosen(["1", "2", "3", "3"], [0, 0, 1, 1])


def test_another_salt_chooses_others():
    keys = [str(number) for number in range(100)]
    assert chosen(keys, [0] * 100, salt="test 0") != chosen(keys, [0] * 100, salt="test 1")


def test_stratified_takes_a_share_of_each_class():
    labels = np.array([0] * 10 + [1] * 20)
    assert np.bincount(labels[stratified(labels, 0.2, 0)]).tolist() == [2, 4]
