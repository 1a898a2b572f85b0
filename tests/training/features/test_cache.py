import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.features.cache import MANY, FeatureCache

WIDTH = 3


def vectors_of(keys):
    """Return features that tell the key."""
    return np.stack([keys % 1000, keys // 7 % 1000, keys * 0 + 1], axis=1).astype(np.float32)


def keys_of(*numbers):
    return np.array(numbers, np.uint64)


def open_cache(top, **changes):
    return FeatureCache("network", WIDTH, top=Path(top), **changes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6), max_size=4), st.data())
def test_what_was_added_is_found_in_any_order_and_nothing_else(pieces, data):
    with tempfile.TemporaryDirectory() as top:
        for piece in pieces:
            open_cache(top).add(keys_of(*piece), vectors_of(keys_of(*piece)))
        there = sorted({key for piece in pieces for key in piece})
        asked = keys_of(*data.draw(st.lists(st.sampled_from([*there, 5]), max_size=20)))
        found, known = open_cache(top).find(asked)
        assert known.tolist() == [key in there for key in asked.tolist()]
        np.testing.assert_array_equal(found[known], vectors_of(asked)[known])


def test_every_damage_is_noticed_and_the_rest_is_still_there(tmp_path):
    good, bad = keys_of(1, 2), keys_of(3, 4)
    cache = open_cache(tmp_path)
    cache.add(bad, vectors_of(bad))
    (piece,) = cache.folder.iterdir()
    whole = piece.read_bytes()
    cache.add(good, vectors_of(good))
    for at in range(0, len(whole), 7):
        piece.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            found, known = cache.find(np.concatenate([bad, good]))
        assert known[2:].all()
        # What is not noticed changes nothing: a time stamp, or a byte of padding.
        np.testing.assert_array_equal(found[known], vectors_of(np.concatenate([bad, good]))[known])
        assert known[:2].all() or not piece.exists() or not known[:2].any()
    piece.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        assert not cache.find(bad)[1].any()
    assert not piece.exists()


def test_what_was_not_used_for_longest_is_removed(tmp_path):
    size = 0
    for number in range(6):
        keys = np.arange(100 * number, 100 * number + 100, dtype=np.uint64)
        before = set(tmp_path.rglob("*.npz"))
        open_cache(tmp_path, most_bytes=6 * size or 2**30).add(keys, vectors_of(keys))
        (piece,) = set(tmp_path.rglob("*.npz")) - before
        size = piece.stat().st_size
        os.utime(piece, (number, number))
    first, new = keys_of(0), keys_of(9999)
    assert open_cache(tmp_path).find(first)[1].all()  # and is now the one used last
    open_cache(tmp_path, most_bytes=3 * size).add(new, vectors_of(new))
    asked = keys_of(0, 100, 200, 300, 400, 500, 9999)
    known = open_cache(tmp_path).find(asked)[1]
    assert known.tolist() == [True, False, False, False, False, True, True]


def test_many_small_pieces_become_one(tmp_path):
    for number in range(MANY):
        open_cache(tmp_path).add(keys_of(number), vectors_of(keys_of(number)))
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    assert open_cache(tmp_path).find(np.arange(MANY, dtype=np.uint64))[1].all()


def test_another_network_has_features_of_its_own(tmp_path):
    open_cache(tmp_path).add(keys_of(1), vectors_of(keys_of(1)))
    assert not FeatureCache("other", WIDTH, top=tmp_path).find(keys_of(1))[1].any()


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(tmp_path):
    (tmp_path / "network").write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match="features are not remembered"):
        open_cache(tmp_path).add(keys_of(1), vectors_of(keys_of(1)))
    assert not open_cache(tmp_path).find(keys_of(1))[1].any()


def test_processes_write_and_read_at_once(tmp_path):
    code = (
        "import sys\nimport numpy as np\nfrom pathlib import Path\n"
        "from pipeline.training.features.cache import FeatureCache\n"
        "cache = FeatureCache('network', 3, top=Path(sys.argv[1]))\n"
        "for number in range(40):\n"
        "    keys = np.array([number, number + 1], np.uint64)\n"
        "    found, known = cache.find(keys)\n"
        "    right = np.stack([keys % 1000, keys // 7 % 1000, keys * 0 + 1], axis=1)\n"
        "    assert (found[known] == right[known]).all()\n"
        "    cache.add(keys, right.astype(np.float32))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [one.communicate()[1] for one in running] == [b""] * 3
    keys = np.arange(41, dtype=np.uint64)
    found, known = open_cache(tmp_path).find(keys)
    assert known.all()
    np.testing.assert_array_equal(found, vectors_of(keys))
