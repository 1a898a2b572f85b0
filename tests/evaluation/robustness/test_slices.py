"""Slices of the test split: which images are in them, and which is the worst."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.models import Evaluation
from pipeline.evaluation.robustness.reports import save_slices
from pipeline.evaluation.robustness.slices import FEWEST_IMAGES, Members, members, slices
from tests.tiny import tiny_splits

COUNT = 120


@pytest.fixture
def splits(tmp_path):
    """Make a test split of which the tenth to fortieth image are dark, and an old scanner's."""
    splits = tiny_splits(tmp_path / "data")
    x = np.random.default_rng(0).integers(100, 200, (COUNT, 8, 8, 1), np.uint8)
    x[10:40] //= 4
    splits.save_split("test", x, np.arange(COUNT) % 4)
    table = {
        "height": np.where(np.arange(COUNT) < 60, 300, 400),
        "width": np.full(COUNT, 400),
        "group": np.array(["", "ward 1", "ward 2"], object)[np.arange(COUNT) % 3],
        "column:scanner": ["old" if 10 <= n < 40 else "new" for n in range(COUNT)],
        "column:age": [str(age) if age % 10 else "" for age in range(COUNT)],
        "column:note": [f"note {number}" for number in range(COUNT)],
        "column:brightness": ["high", "low"] * (COUNT // 2),
    }
    pq.write_table(pa.table(table), splits.recorded_file("test"))
    return splits


def test_images_are_sliced_by_their_looks_their_files_and_the_columns_of_their_labels(splits):
    found = {(each.attribute, each.value): each.rows for each in members(splits)}
    names = dict.fromkeys(attribute for attribute, _ in found)
    assert list(names) == [
        *("brightness", "contrast", "sharpness", "size of the file's image", "aspect ratio"),
        *("group", "scanner", "age", "column brightness"),  # and not `note`, which slices nothing
    ]
    dark = next(rows for (name, value), rows in found.items() if value.startswith("lowest"))
    assert dark[10:40].all()
    assert found["aspect ratio", "1.33"].tolist() == [True] * 60 + [False] * 60
    assert found["group", "ward 1"].sum() == COUNT // 3
    assert ("group", "") not in found
    ages = [rows for (name, _), rows in found.items() if name == "age"]
    assert len(ages) == 3
    assert sum(rows.sum() for rows in ages) == COUNT * 9 // 10  # those whose age is known


def test_the_worst_slice_is_named_and_reported(splits, tmp_path):
    right = np.ones(COUNT, bool)
    right[12:32] = False
    found = slices(right, members(splits))
    assert found.worst
    assert found.interval
    assert str(found.worst) == "scanner: old"
    assert found.worst.images == 30
    assert found.worst.accuracy == pytest.approx(1 / 3)
    # More was looked at than one slice, so that its interval reaches further up.
    assert found.interval[1] > found.worst.high
    evaluation = Evaluation(tmp_path / "evaluation")
    save_slices(found, right.mean(), evaluation)
    assert evaluation.slices == found.rows
    assert (evaluation.path / "plots" / "slices.png").stat().st_size > 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5), st.integers(0, 99))
def test_only_slices_with_enough_images_are_judged(sizes, seed):
    right = np.random.default_rng(seed).random(60) < 0.7
    some = [Members("size", str(n), np.arange(60) < n) for n in sizes]
    found = slices(right, some)
    judged = [n for n in sizes if n >= FEWEST_IMAGES]
    assert sorted(row.images for row in found.rows) == sorted(judged)
    assert (found.worst is None) == (found.interval is None) == (not judged)
    if found.worst and found.interval:
        assert found.worst.accuracy == min(right[:n].mean() for n in judged)
        assert found.interval[0] <= found.worst.accuracy <= found.interval[1]


def test_a_split_of_an_earlier_release_is_sliced_by_its_pixels(tmp_path):
    names = {each.attribute for each in members(tiny_splits(tmp_path / "data"))}
    assert names == {"brightness", "contrast", "sharpness"}
