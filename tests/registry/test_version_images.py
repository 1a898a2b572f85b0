"""Which images a version was trained on: recorded with it, and read back as they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.files import sha256
from pipeline.errors import ArtifactError
from pipeline.registry import model_files, versions
from pipeline.registry.version_images import VersionImages
from tests.promotable import ask, files_of, run, two

__all__ = ["two"]
contents = st.lists(st.integers(0, 2**64 - 1), max_size=20).map(lambda x: np.array(x, np.uint64))


def images_of(version):
    images = model_files.read_images(version)
    assert images is not None
    return images


def test_a_version_records_its_images(two):
    version, splits = versions.find("tiny/2"), two.splits
    images = images_of(version)
    for split, stored in (("train", images.train), ("val", images.val), ("test", images.test)):
        assert stored.dtype == np.uint64
        assert stored.tolist() == sorted(splits.contents(split).tolist())
    np.testing.assert_array_equal(images.test_rows, splits.contents("test"))
    file = files_of(2) / "images.npz"
    assert model_files.read_passport(version).images_sha256 == sha256(file)
    assert sha256(file) in run("lineage", "tiny/2").stdout.replace("\n", "")
    assert version.tags["images_sha256"] == sha256(file)


def test_other_images_than_those_recorded_are_noticed(two):
    images = images_of(versions.find("tiny/2"))
    VersionImages(images.train[1:], images.val, images.test, images.test_rows).save(
        files_of(2) / "images.npz"
    )
    with pytest.raises(ArtifactError, match=r"images.npz of tiny/2 is not what was registered"):
        ask(2, two)
    with pytest.raises(ArtifactError, match="is not what was registered"):
        model_files.read_images(versions.find("tiny/2"))


@given(contents, contents, contents)
def test_what_was_trained_or_validated_on_is_seen(tmp_path_factory, train, val, test):
    made = VersionImages(np.sort(train), np.sort(val), np.sort(test), test)
    file = tmp_path_factory.mktemp("images") / "images.npz"
    made.save(file)
    first = file.read_bytes()
    VersionImages.load(file).save(file)
    assert file.read_bytes() == first
    seen = {*train.tolist(), *val.tolist()}
    assert made.has_seen(test).tolist() == [image in seen for image in test.tolist()]


def test_a_torn_file_is_said(tmp_path):
    file = tmp_path / "images.npz"
    file.write_bytes(b"PK torn")
    with pytest.raises(ArtifactError, match=r"cannot read .*images.npz"):
        VersionImages.load(file)
