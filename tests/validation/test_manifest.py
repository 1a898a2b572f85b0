import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError
from pipeline.validation import manifest as module
from pipeline.validation import pixels
from pipeline.validation.manifest import build_manifest, describe, save_manifest
from pipeline.validation.pixels import HISTOGRAM_BINS
from tests.raw import raw_dataset


def images(seed, n=5, height=9, width=7, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), np.uint8)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Return a function that writes images to a file and describes them."""
    path = tmp_path_factory.mktemp("described") / "x.npy"

    def describe_images(x, readable):
        np.save(path, x)
        return describe({path: readable})

    return describe_images


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 6),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    readable=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_pixels_are_measured_image_by_image(described, seed, n, height, width, channels, readable):
    x, mask = images(seed, n, height, width, channels), np.array(readable[:n])
    table, histogram = described(x, mask)
    assert histogram.shape == (channels, HISTOGRAM_BINS)
    assert (histogram.sum(axis=1) == mask.sum() * height * width).all()
    for image, row, known in zip(x, table.itertuples(), mask, strict=True):
        if not known:
            assert pd.isna([row.mean, row.std, row.min, row.max, row.sha256, row.dhash]).all()
            continue
        assert (row.min, row.max) == (image.min(), image.max())
        assert [row.mean, row.std] == pytest.approx([image.mean(), image.std()])
        assert row.sha256 == hashlib.sha256(image.tobytes()).hexdigest()
        assert len(str(row.dhash)) == 16


def test_the_size_of_a_chunk_changes_nothing(described, monkeypatch):
    x = images(0, n=11)
    whole, histogram = described(x, np.ones(11, bool))
    monkeypatch.setattr(module, "CHUNK_PIXELS", 5 * x[0].size)
    monkeypatch.setattr(pixels, "BLOCK_PIXELS", 2 * x[0].size)
    parts, same = described(x, np.ones(11, bool))
    pd.testing.assert_frame_equal(whole, parts)
    np.testing.assert_array_equal(histogram, same)


@given(value=st.integers(0, 255), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_constant_image_has_no_deviation_and_no_bit(described, value, height, width):
    table, _ = described(np.full((1, height, width, 3), value, np.uint8), np.array([True]))
    assert table["std"][0] == 0
    assert table["dhash"][0] == "0" * 16


def test_a_row_says_where_the_image_came_from(tmp_path):
    raw = raw_dataset(tmp_path)
    table, _ = build_manifest(raw)
    assert len(table) == sum(raw.info.counts.values())
    assert list(table["split"].unique()) == ["train", "test"]
    first = table.iloc[0]
    assert (first.label, first.class_name) == (raw.y("train")[0], str(raw.y("train")[0]))
    assert (first.height, first.width, first["mode"], first.error) == (8, 8, "L", "")
    save_manifest(table, tmp_path / "manifest.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "manifest.parquet"), table)


def test_arrays_that_do_not_fit_together_are_refused(tmp_path):
    raw = raw_dataset(tmp_path)
    np.save(raw.path / "y_test.npy", raw.y("test")[:-1])
    with pytest.raises(ArtifactError, match="test has 360 images, 359 labels and 360 rows"):
        build_manifest(raw)


def test_a_torn_list_of_files_is_refused(tmp_path):
    raw = raw_dataset(tmp_path)
    raw.files.write_bytes(b"PAR1 and no more")
    with pytest.raises(ArtifactError, match=r"cannot read .*files\.parquet.*run ingest again"):
        build_manifest(raw)
