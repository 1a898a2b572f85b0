"""Near-duplicates among perceptual hashes, against looking at every pair."""

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import decode
from pipeline.similar import (
    MOST_BITS,
    alike,
    coarse,
    dhash,
    first_of_group,
    near_duplicates,
    thumbnails,
)


def test_a_difference_hash_tells_pictures_apart_and_not_their_brightness():
    ramp = np.tile(np.arange(0.0, 36.0), (32, 1))[None]
    assert dhash(ramp)[0] == 2**64 - 1
    assert dhash(ramp[..., ::-1])[0] == 0
    assert dhash(ramp * 3 + 5) == dhash(ramp)


def found(gray):
    return near_duplicates(
        dhash(gray), coarse(gray), gray.mean(axis=(1, 2)), lambda rows: thumbnails(gray[rows])
    ).tolist()


def by_every_pair(gray):
    hashes, small = dhash(gray), thumbnails(gray)
    return [
        [a, b]
        for a, b in combinations(range(len(gray)), 2)
        if np.bitwise_count(hashes[a] ^ hashes[b]) <= MOST_BITS and alike(small[a], small[b])
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), copies=st.integers(0, 6), noise=st.integers(0, 40))
def test_what_looking_at_every_pair_finds_is_found(seed, copies, noise):
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 256, (60, 20, 24)).astype(float)
    again = gray[:copies] * 0.9 + 10 + rng.integers(0, noise + 1, (copies, 20, 24))
    gray = rng.permutation(np.concatenate([gray, again]).round())
    pairs = found(gray)
    assert pairs == by_every_pair(gray)
    assert len(pairs) == copies or noise > 5


def test_flat_images_are_no_near_duplicates():
    flat = np.full((40, 16, 16), 7.0) + np.arange(40)[:, None, None] % 5
    ramps = np.tile(np.arange(16.0, 0, -1), (3, 16, 1))
    assert found(np.concatenate([flat, ramps])) == []


def photograph(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), np.uint8)
    return Image.fromarray(noise).resize((300, 240), Image.Resampling.BICUBIC)


def packed(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return decode(buffer.getvalue(), (64, 64, 3), "crop").sum(axis=2).astype(float)


@pytest.mark.parametrize(
    "again",
    [
        lambda image: packed(image, format="JPEG", quality=60),
        lambda image: packed(image.resize((150, 120)), format="PNG"),
        lambda image: packed(image.point(lambda value: value * 0.9 + 10), format="PNG"),
    ],
    ids=["compressed", "smaller", "darker"],
)
def test_the_same_picture_in_another_form_is_found_among_many(again):
    first, last = packed(photograph(0), format="PNG"), again(photograph(0))
    others = [packed(photograph(seed), format="PNG") for seed in range(1, 30)]
    assert found(np.stack([first, *others, last])) == [[0, 30]]


def test_a_million_alike_cost_no_more_than_their_neighbours():
    # All of one hash: a pair of neighbours in brightness is found, and the time is bounded.
    rng = np.random.default_rng(0)
    hashes = np.full(20_000, 12345, np.uint64)
    small = rng.integers(-60, 60, (20_000, 64)).astype(np.int8)
    small[500], brightness = small[40], rng.random(20_000)
    brightness[500] = brightness[40]
    pairs = near_duplicates(
        hashes, small, brightness, lambda rows: (small[rows] / 32).astype(np.float32)
    )
    assert pairs.tolist() == [[40, 500]]


def test_a_group_is_what_pairs_link_and_is_named_by_its_first():
    pairs = np.array([[1, 4], [4, 5], [2, 3]])
    assert first_of_group(pairs, 7).tolist() == [0, 1, 2, 2, 1, 1, 6]
