import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from pipeline.models.recipes import Augmentation
from pipeline.training.backends.augment import ALL_DRAWS, augment, draws_of
from pipeline.training.backends.mixing import mix

MANY = 64


def noise(height=12, width=16, channels=3):
    """The same random picture many times, so that each one shows another change of it."""
    picture = np.random.default_rng(0).integers(1, 256, (height, width, channels), dtype=np.uint8)
    return np.repeat(picture[None], MANY, axis=0)


def changed(images, seed=(1, 2), **changes):
    draw = np.random.default_rng(seed)
    augmentation = Augmentation(**changes)
    count = max(ALL_DRAWS, draws_of(augmentation))
    draws = draw.random((count, len(images)), dtype=np.float32)
    mirrored = draw.random(len(images)) < 0.5
    return np.asarray(augment(images, augmentation, draws, mirrored))


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
    **{"random_resized_crop": 0.3, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 1.0},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "rand_augment": {"num_ops": 2, "magnitude": 9},
}


MIXED = ("mixup", "cutmix")


def mixed(images, seed=(1, 2), **changes):
    draws = np.random.default_rng(seed).random((4, len(images)), dtype=np.float32)
    labels = np.arange(len(images), dtype=np.int32)
    found = mix(images, labels, Augmentation(**changes), draws, len(images))
    return tuple(np.asarray(each) for each in found)


def test_every_key_is_tried_here():
    assert set(ALL) == set(Augmentation.model_fields)


@pytest.mark.parametrize("name", ALL)
def test_only_what_is_new_needs_more_random_numbers(name):
    """The recipes of before draw the same ones as ever."""
    old = ["shift", "flip", "rotation", "zoom", "crop", "cutout", "fill"]
    assert (draws_of(Augmentation(**{name: ALL[name]})) == 10) is (name in old)


def test_no_augmentation_is_the_identity():
    np.testing.assert_array_equal(changed(noise()), noise())


@pytest.mark.parametrize(
    ("name", "value"), [(k, v) for k, v in ALL.items() if k not in ("fill", *MIXED)]
)
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


def test_a_random_resized_crop_shows_a_part_of_the_image_and_no_more():
    """The picture says of each pixel where it comes from."""
    rows, columns = np.mgrid[:33, :33].astype(np.uint8) * 7
    x = np.repeat(np.stack([rows, columns, rows], axis=2)[None], 512, axis=0)
    y = changed(x, random_resized_crop=0.25, fill="constant").astype(float) / 7
    tall = y[:, -1, 0, 0] - y[:, 0, 0, 0]
    wide = y[:, 0, -1, 1] - y[:, 0, 0, 1]
    area = tall * wide / 32**2
    assert 0.24 < area.min() < 0.3
    assert 0.9 < area.max() <= 1
    assert 0.55 < area.mean() < 0.7
    assert (wide / tall).min() > 3 / 4 - 0.03
    assert (wide / tall).max() < 4 / 3 + 0.03
    for axis, channel in ((1, 0), (2, 1)):
        assert (np.diff(y[..., channel], axis=axis) >= 0).all(), "it runs on, and is never blank"
    assert len(np.unique(y[:, 0, 0], axis=0)) > 50


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_random_erasing_blanks_a_rectangle_of_some_images(probability):
    x = np.repeat(noise(height=64, width=64)[:1], 512, axis=0)
    y = changed(x, random_erasing=probability)
    blank = (y == 0).all(axis=3)
    np.testing.assert_array_equal(y[~blank], x[~blank])
    erased = blank.any(axis=(1, 2))
    assert erased.mean() == pytest.approx(probability, abs=0.07)
    share = blank[erased].mean(axis=(1, 2))
    assert 0.01 < share.min() < 0.06
    assert 0.25 < share.max() < 0.36
    box = blank.any(axis=1).sum(axis=1) * blank.any(axis=2).sum(axis=1)
    np.testing.assert_array_equal(box, blank.sum(axis=(1, 2)))
    assert blank.any(axis=0).mean() > 0.95


@pytest.mark.parametrize(
    ("name", "method"),
    [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")],
)
def test_colours_are_changed_as_pillow_does(name, method):
    x = np.random.default_rng(0).integers(90, 160, (MANY, 9, 7, 3), dtype=np.uint8)
    y = changed(x, color_jitter={name: 0.4})
    factors = 1 + 0.4 * (
        2 * draws_for(MANY)[["brightness", "contrast", "saturation"].index(name)] - 1
    )
    for image, seen, factor in zip(x, y, factors, strict=True):
        enhance = getattr(ImageEnhance, method)(Image.fromarray(image))
        expected = np.asarray(enhance.enhance(float(factor))).astype(int)
        assert np.abs(expected - seen).max() <= 2


def draws_for(count):
    """What `changed` draws for the colours."""
    return np.random.default_rng((1, 2)).random((ALL_DRAWS, count), dtype=np.float32)[14:18]


def test_a_turned_hue_keeps_brightness_and_leaves_gray_alone():
    x = np.random.default_rng(0).integers(100, 150, (MANY, 9, 7, 3), dtype=np.uint8)
    y = changed(x, color_jitter={"hue": 0.5}).astype(float)
    luma = [image @ np.array([0.299, 0.587, 0.114]) for image in (x, y)]
    np.testing.assert_allclose(luma[0], luma[1], atol=1.5)
    assert np.abs(x - y).max() > 20
    gray = np.repeat(x[..., :1], 3, axis=3)
    np.testing.assert_allclose(gray, changed(gray, color_jitter={"hue": 0.5}), atol=1)
    one = x[..., :1]
    np.testing.assert_array_equal(one, changed(one, color_jitter={"hue": 0.5, "saturation": 0.5}))


@pytest.mark.parametrize(
    "changes", [{"mixup": 0.3}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]
)
def test_a_mixed_image_has_as_much_of_each_class_as_its_label_says(changes):
    x = np.broadcast_to(np.arange(MANY, dtype=np.uint8)[:, None, None, None] * 4, (MANY, 20, 20, 1))
    images, targets, labels = mixed(x, **changes)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    assert (targets >= 0).all()
    assert ((targets > 0).sum(axis=1) <= 2).all()
    values = targets @ (np.arange(MANY) * 4)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), values, atol=0.51)
    np.testing.assert_array_equal(
        labels,
        np.where(
            targets.max(axis=1) == targets[range(MANY), range(MANY)],
            range(MANY),
            np.roll(range(MANY), 1),
        ),
    )
    assert len(np.unique(targets.max(axis=1).round(3))) > 10
    again, *_ = mixed(x, **changes)
    np.testing.assert_array_equal(images, again)
    whole = np.array([len(np.unique(image)) == 1 for image in images])
    if changes == {"mixup": 0.3}:
        assert whole.all(), "an even image mixed with another one stays even"
    else:
        assert (~whole).mean() > 0.1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_what_remains_is_of_the_beta_distribution(alpha):
    x = np.zeros((4000, 1, 1, 1), np.uint8)
    draws = np.random.default_rng(0).random((4, 4000), dtype=np.float32)
    labels = np.arange(4000, dtype=np.int32) % 2
    _, targets, _ = mix(x, labels, Augmentation(mixup=alpha), draws, 2)
    share = np.asarray(targets)[range(4000), labels]
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_one_image_is_mixed_with_nothing():
    images, targets, _ = mixed(noise()[:1], mixup=0.4, cutmix=1.0)
    np.testing.assert_array_equal(images, noise()[:1])
    np.testing.assert_array_equal(targets, [[1]])
