"""Images in shards are indexed as the array that they would be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.files import write_array
from pipeline.artifacts.shards import Rows, digest_of
from pipeline.errors import ArtifactError

SIZES = (4, 1, 7)
DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module", params=[(3, 2, 1), (40, 40, 3)], ids=["mapped", "read"])
def pixels(request):
    return DRAW.integers(0, 256, (sum(SIZES), *request.param), np.uint8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("shards")
    starts = np.cumsum([0, *SIZES])
    paths = [folder / f"{n}.npy" for n in range(len(SIZES))]
    for n, path in enumerate(paths):
        write_array(path, pixels[starts[n] : starts[n + 1]])
    return lambda rows: Rows(paths, starts, np.array(rows, np.int64), pixels.shape[1:])


@given(rows=st.lists(st.integers(0, sum(SIZES) - 1), min_size=1, max_size=20), data=st.data())
def test_rows_are_indexed_as_an_array(shards, pixels, rows, data):
    images, array = shards(rows), pixels[rows]
    count = len(rows)
    some = data.draw(st.lists(st.integers(-count, count - 1), max_size=9))
    keys = [
        data.draw(st.slices(count)),
        data.draw(st.integers(-count, count - 1)),
        np.array(some, int),
        np.arange(count) % 2 == 0,
        (np.array(some, int), slice(None, None, 2), 1),
        np.array([some, some], int),
    ]
    for key in keys:
        np.testing.assert_array_equal(images[key], array[key])
        assert images[key].shape == array[key].shape
    np.testing.assert_array_equal(np.asarray(images), array)
    np.testing.assert_array_equal(np.stack(list(images)), array)
    wanted = np.array(some, int)
    out = np.empty((len(some), *pixels.shape[1:]), np.uint8)
    np.take(images, wanted, axis=0, out=out, mode="clip")
    np.testing.assert_array_equal(out, array[wanted])
    assert (images.shape, images.nbytes, images.dtype) == (array.shape, array.nbytes, array.dtype)
    assert len(images) == count


def test_no_rows_are_an_empty_array(shards, pixels):
    assert shards([])[:].shape == (0, *pixels.shape[1:])


def test_rows_beyond_the_shards_are_refused(shards):
    with pytest.raises(ArtifactError, match="rows 3 to 12 are not in 12 images"):
        shards([3, 12])


def test_the_digest_tells_order_and_shape():
    sums = [bytes([n]) * 32 for n in range(3)]
    assert digest_of(sums, (3, 2, 1)) == digest_of([b"".join(sums)], (3, 2, 1))
    others = {digest_of(sums[::-1], (3, 2, 1)), digest_of(sums, (2, 3, 1))}
    assert len(others | {digest_of(sums, (3, 2, 1))}) == 3
