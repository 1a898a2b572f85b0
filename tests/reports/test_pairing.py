"""Which images two models are compared on, for any two records of images."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.predictions import Predictions
from pipeline.registry.version_images import VersionImages
from pipeline.reports.comparing.changes import Origin
from pipeline.reports.comparing.flips import LocalData
from pipeline.reports.comparing.pairing import Pairs, pair
from pipeline.reports.comparing.sides import Side

HERE = LocalData(Path("none"), None)
images = st.sets(st.integers(0, 12))
rows = st.dictionaries(st.integers(0, 12), st.integers(0, 1), min_size=1)


def side(letter, labels, seen):
    """Return a model with a record of its images; it is always right."""
    y, contents = np.array([*labels.values()]), np.array([*labels], np.uint64)
    train = np.array(sorted(seen), np.uint64)
    return Side(
        spec=letter,
        run_id=letter,
        experiment_id=None,
        dataset="tiny",
        model="dense",
        aliases=(),
        predictions=Predictions(("x", "y"), y, np.eye(2, dtype=np.float32)[y]),
        metrics={},
        history={},
        origin=Origin({}),
        data_md5=letter,
        test_md5=None,
        images=VersionImages(train, train[:0], np.sort(contents), contents),
    )


@given(rows, rows, images, images)
def test_compared_are_the_images_of_both_that_none_has_seen_with_one_label(a, b, seen_a, seen_b):
    one, other = side("A", a, seen_a), side("B", b, seen_b)
    found = pair(one, other, HERE)
    shared = {*a} & {*b}
    expected = {image for image in shared - seen_a - seen_b if a[image] == b[image]}
    if not expected:
        assert isinstance(found, str)
        return
    assert isinstance(found, Pairs)
    compared = one.images.test_rows[found.rows_a]
    np.testing.assert_array_equal(compared, other.images.test_rows[found.rows_b])
    assert set(compared.tolist()) == expected
    assert (found.note == "") == (len(expected) == len(a) == len(b))
    assert ("of another label" in found.note) == any(
        a[image] != b[image] for image in shared - seen_a - seen_b
    )
    first, second = found.predictions(one, other)
    np.testing.assert_array_equal(first.y, second.y)
