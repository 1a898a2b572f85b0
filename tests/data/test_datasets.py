"""datasets: what every entry of the catalogue must say."""

import re

import pytest

from pipeline.data.datasets import DATASETS, get, known_names
from pipeline.errors import ParamsError


@pytest.mark.parametrize("name", known_names())
def test_every_entry_is_complete(name):
    dataset = get(name)
    assert dataset.name == name
    assert set(dataset.expected) == {"train", "test"}
    assert len(set(dataset.class_names)) == len(dataset.class_names) >= 2
    assert len(dataset.image_shape) == 3
    assert dataset.image_shape[2] in (1, 3)
    assert dataset.licence


@pytest.mark.parametrize("name", [name for name in known_names() if DATASETS[name].files])
def test_every_file_has_sources_and_checksums(name):
    for file in get(name).files:
        assert file.pinned
        assert file.sources
        assert all(re.match(r"https?://.+/", source) for source in file.sources)
        checksums = [c for c in (file.md5, *file.members.values()) if c]
        assert all(re.fullmatch("[0-9a-f]{32}", checksum) for checksum in checksums)


def test_an_unknown_dataset_is_answered_with_the_known_ones():
    with pytest.raises(ParamsError) as caught:
        get("fashion-mnist")
    message = str(caught.value)
    assert "unknown dataset 'fashion-mnist'" in message
    assert "known: digits, fashion_mnist, mnist, cifar10" in message
    assert "own images need an entry under datasets in params.yaml" in message
