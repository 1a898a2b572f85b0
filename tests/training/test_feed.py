"""Arrays that are read chunk by chunk train the same as those that lie on the device."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.files import read_array, write_array
from pipeline.models import build as models
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training import engine, feed
from pipeline.training.engine import Data, fit
from pipeline.training.feed import Resident, Streamed, order

RECIPE = Recipe.model_validate(
    {
        "layers": [{"conv": 4, "strides": 2}, "flatten", {"dense": 16}],
        "epochs": 2,
        "batch_size": 16,
        "augmentation": {"flip": "alternating", "crop": 1},
        "keep": "last",
    }
)
DRAW = np.random.default_rng(0)
X = DRAW.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
Y = np.arange(100) % 4


@pytest.fixture
def mapped(tmp_path):
    """The same images in a file."""
    write_array(tmp_path / "x.npy", X)
    return read_array(tmp_path / "x.npy")


def images_of(found):
    x, y, indices = found
    return np.asarray(x)[indices], np.asarray(y)[indices]


@pytest.mark.parametrize("make", [Resident, lambda x, y: Streamed(x, y, 16 * 64)])
def test_rows_lead_to_their_images(make, mapped):
    fed = make(mapped, Y)
    for indices in (np.array([[5, 99, 5], [0, 1, 2]], np.int32), np.array([[7]], np.int32)):
        x, y = images_of(fed.prefetch(indices)())
        np.testing.assert_array_equal(x, X[indices])
        np.testing.assert_array_equal(y, Y[indices])
    x, y = (np.concatenate([np.asarray(b[n]) for b in fed.blocks()]) for n in (0, 1))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_a_file_is_not_copied(mapped):
    """What is written into the array is seen by the training, and not by the file."""
    fed = Resident(mapped, Y)
    mapped[5] = 7
    x, _ = images_of(fed.prefetch(np.array([[5]], np.int32))())
    assert (x == 7).all()
    np.testing.assert_array_equal(np.load(mapped.filename), X)


def test_a_chunk_is_as_small_as_asked(mapped):
    fed = Streamed(mapped, Y, 16 * 64)
    assert fed.most_images == 16
    assert [len(np.asarray(x)) for x, _ in fed.blocks()] == [16] * 6 + [4]


def test_the_chunks_of_a_training_have_one_shape(mapped):
    """Steps that are compiled for a shape are compiled once."""
    fed = Streamed(mapped, Y, 16 * 64)
    for indices in (np.arange(4).reshape(1, 4), np.arange(16).reshape(4, 4)):
        x, y, _ = fed.prefetch(indices.astype(np.int32))()
        assert (len(np.asarray(x)), len(np.asarray(y))) == (16, 16)


def test_what_fits_into_memory_lies_on_the_device(mapped, monkeypatch):
    assert isinstance(feed.feed(mapped, Y), Resident)
    monkeypatch.setattr(feed, "memory", lambda: X.nbytes)
    assert isinstance(feed.feed(mapped, Y), Streamed)


@pytest.mark.parametrize(("most", "free"), [("max", None), ("1000", 600), (None, None)])
def test_a_container_has_the_memory_that_it_may_take(most, free, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "CGROUP", tmp_path)
    if most:
        (tmp_path / "memory.max").write_text(most)
        (tmp_path / "memory.current").write_text("400")
    found = feed.memory()
    assert found == free if free else found > 2**20


LABELS = st.lists(st.integers(1, 12), min_size=2, max_size=5).map(
    lambda counts: np.random.default_rng(0).permutation(np.repeat(range(len(counts)), counts))
)


@given(labels=LABELS, seed=st.integers(0, 9), epochs=st.integers(1, 20))
def test_balanced_epochs_have_equally_many_of_each_class_and_leave_no_image_out(
    labels, seed, epochs
):
    seen = np.zeros(len(labels), int)
    for epoch in range(1, epochs + 1):
        rows, _ = order(seed, epoch, len(labels), Augmentation(), labels)
        again, _ = order(seed, epoch, len(labels), Augmentation(), labels)
        np.testing.assert_array_equal(rows, again)
        counts = np.bincount(labels[rows], minlength=labels.max() + 1)
        assert counts.sum() == len(labels)
        assert counts.max() - counts.min() <= 1
        seen += np.bincount(rows, minlength=len(labels))
    for label in np.unique(labels):
        often = seen[labels == label]
        assert often.max() - often.min() <= 1


def test_a_balanced_order_is_another_one_in_every_epoch_and_for_every_seed():
    labels = np.repeat([0, 1], [30, 10])
    seen = {
        tuple(order(seed, epoch, 40, Augmentation(), labels)[0])
        for seed in (0, 1)
        for epoch in (1, 2)
    }
    assert len(seen) == 4
    assert all(list(labels[list(rows)]) != sorted(labels[list(rows)]) for rows in seen)


def test_alternating_flips_mirror_an_image_every_second_time_that_it_is_seen():
    labels, alternating = np.repeat([0, 1], [30, 10]), Augmentation(flip="alternating")
    seen: dict[int, list[bool]] = {row: [] for row in range(40)}
    for epoch in range(1, 13):
        rows, mirrored = order(0, epoch, 40, alternating, labels)
        last: dict[int, set[bool]] = {}
        for row, mirror in zip(rows.tolist(), mirrored.tolist(), strict=True):
            last.setdefault(row, set()).add(mirror)
        for row, sides in last.items():
            seen[row] += sides if len(sides) == 1 else []
    common = [seen[row] for row in range(30)]
    assert all(a != b for sides in common for a, b in itertools.pairwise(sides))


def test_both_train_the_same(mapped, monkeypatch):
    ends = []
    for make in (Resident, lambda x, y: Streamed(x, y, 40 * 64)):
        monkeypatch.setattr(engine, "feed", make)
        model = models.build(RECIPE, (8, 8, 1), 4, 0)
        data = Data(mapped, Y, mapped[:40], Y[:40], ("a", "b", "c", "d"))
        history = fit(model, RECIPE, data, seed=0)
        ends.append((model.get_weights(), [row.val_loss for row in history.epochs]))
    for a, b in zip(ends[0][0], ends[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-4)
