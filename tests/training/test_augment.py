import numpy as np
import pytest

from pipeline.models.recipes import Augmentation
from pipeline.training.backends.augment import DRAWS, augment

MANY = 64


def noise(height=12, width=16, channels=3):
    """The same random picture many times, so that each one shows another change of it."""
    picture = np.random.default_rng(0).integers(1, 256, (height, width, channels), dtype=np.uint8)
    return np.repeat(picture[None], MANY, axis=0)


def changed(images, seed=(1, 2), **changes):
    draw = np.random.default_rng(seed)
    draws = draw.random((DRAWS, len(images)), dtype=np.float32)
    mirrored = draw.random(len(images)) < 0.5
    return np.asarray(augment(images, Augmentation(**changes), draws, mirrored))


def brightest(images):
    """Row and column of the brightest pixel of each picture."""
    flat = images[..., 0].reshape(len(images), -1).argmax(axis=1)
    return np.stack(np.unravel_index(flat, images.shape[1:3]), axis=1)


def dot(side=33):
    """A blurred dot in the middle of the picture."""
    distance = np.abs(np.arange(side) - side // 2)
    picture = np.clip(250 - 25 * (distance[:, None] ** 2 + distance**2), 0, 255).astype(np.uint8)
    return np.repeat(picture[None, :, :, None], MANY, axis=0)


ALL = {
    **{"shift": 0.2, "flip": "both", "rotation": 20, "zoom": 0.2},
    **{"crop": 2, "cutout": 0.3, "fill": "constant"},
}


def test_no_augmentation_is_the_identity():
    np.testing.assert_array_equal(changed(noise()), noise())


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, v in ALL.items() if k != "fill"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_one_changes_images_anew_for_every_seed_and_keeps_their_form(name, value, channels):
    x = noise(channels=channels)
    one, again, other = (changed(x, seed, **{name: value}) for seed in ((1, 2), (1, 2), (1, 3)))
    assert one.shape == x.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert len(np.unique(one, axis=0)) > 1


def test_all_together_keep_the_form():
    assert changed(noise(), **ALL).shape == noise().shape


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", [2]), ("vertical", [1])])
def test_a_flip_is_the_mirror_image_of_about_half(flip, axes):
    x = noise()
    y = changed(x, flip=flip)
    same, mirrored = (
        np.array([np.array_equal(a, b) for a, b in zip(y, z, strict=True)])
        for z in (x, np.flip(x, axes))
    )
    assert (same ^ mirrored).all()
    assert 0.25 < mirrored.mean() < 0.75


def test_both_flips_make_four_pictures():
    assert len(np.unique(changed(noise(), flip="both"), axis=0)) == 4


def test_a_shift_moves_at_most_so_far_in_every_direction():
    moved = brightest(changed(dot(), shift=0.2)) - 16
    assert np.abs(moved).max() <= round(0.2 * 33)
    assert (moved.min(axis=0) < -3).all()
    assert (moved.max(axis=0) > 3).all()


def test_a_rotation_turns_around_the_centre_and_at_most_so_far():
    x = np.roll(dot(), 12, axis=2)  # the dot lies to the right of the centre
    row, column = (brightest(changed(x, rotation=45)) - 16).T
    np.testing.assert_allclose(np.hypot(row, column), 12, atol=1)
    angles = np.degrees(np.arctan2(row, column))
    assert np.abs(angles).max() <= 45 + 3
    assert angles.min() < -20
    assert angles.max() > 20


def test_a_zoom_enlarges_and_reduces_at_most_so_far():
    x = np.roll(dot(), 10, axis=2)
    row, column = (brightest(changed(x, zoom=0.3)) - 16).T
    assert (np.abs(row) <= 1).all()
    assert 6 <= column.min() < 9
    assert 11 < column.max() <= 13


@pytest.mark.parametrize(("fill", "expected"), [("constant", 0), ("nearest", 9), ("reflect", 9)])
def test_fill_says_what_stands_where_a_shift_leaves_nothing(fill, expected):
    flat = np.full((MANY, 8, 8, 1), 9, np.uint8)
    assert changed(flat, shift=0.5, fill=fill).min() == expected


def test_a_crop_is_a_window_of_the_image_with_a_reflected_border():
    x = noise()
    padded = np.pad(x[0], ((3, 3), (3, 3), (0, 0)), mode="reflect")
    windows = {padded[i : i + 12, j : j + 16].tobytes(): (i, j) for i in range(7) for j in range(7)}
    starts = {windows[y.tobytes()] for y in changed(x, crop=3)}
    assert len(starts) > 20
    assert {i for i, _ in starts} == {j for _, j in starts} == set(range(7))


def test_a_cutout_blanks_one_square_of_that_side():
    y = changed(noise(height=16), cutout=0.25)
    blank = (y == 0).all(axis=3)
    assert (blank.sum(axis=(1, 2)) == 16).all()
    assert (blank.any(axis=1).sum(axis=1) == 4).all()
    assert (blank.any(axis=2).sum(axis=1) == 4).all()
    np.testing.assert_array_equal(y[~blank], noise(height=16)[~blank])
    assert blank.any(axis=0).mean() > 0.8
