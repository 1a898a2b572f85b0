"""formats: IDX files and CIFAR-10's pickled batches, good and hostile."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from pipeline.data.readers.arrays import read_cifar10, read_idx, unpickle
from pipeline.errors import ArchiveError, DatasetError
from tests.cifar10 import archive, batch, batches
from tests.images import make_tar


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    shape = b"".join(struct.pack(">I", side) for side in array.shape)
    return bytes([0, 0, kind, array.ndim]) + shape + array.tobytes()


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2)])
def test_idx_comes_back(tmp_path, wrap, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (tmp_path / "x").write_bytes(wrap(idx(array)))
    assert (read_idx(tmp_path / "x") == array).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00", "not an IDX file"),
        (b"<html>", "not an IDX file"),
        (idx(np.zeros(4, np.uint8), kind=0x0D), "not an IDX file of unsigned bytes"),
        (idx(np.zeros(4, np.uint8))[:-1], "holds 3 values, its header says 4"),
        (idx(np.zeros(4, np.uint8)) + b"x", "holds 5 values"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "holds 0 values"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 3, "values, its header says"),
    ],
)
def test_a_damaged_idx_is_named(tmp_path, data, reason):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DatasetError, match=reason):
        read_idx(tmp_path / "x")


def test_cifar10_comes_back_in_order(tmp_path):
    arrays = read_cifar10([archive(tmp_path / "x.tar.gz", per_batch=4)])
    (x_train, y_train), (x_test, y_test) = arrays["train"], arrays["test"]
    assert x_train.shape == (20, 32, 32, 3)
    assert x_train.dtype == np.uint8
    assert y_train.dtype == np.int64
    pixels, labels = batches(4)["data_batch_2"]
    assert y_train[4:8].tolist() == labels
    first = pixels[0].reshape(3, 32, 32)
    assert (x_train[4, :, :, 1] == first[1]).all()
    assert x_test.shape == (4, 32, 32, 3)
    assert y_test.tolist() == batches(4)["test_batch"][1]


def test_a_missing_batch_is_named(tmp_path):
    content = {"data_batch_1": batch(*batches(2)["data_batch_1"])}
    with pytest.raises(DatasetError, match=r"lacks data_batch_2, .*, test_batch"):
        read_cifar10([make_tar(tmp_path / "x.tar.gz", content)])


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/pwned-by-a-pickle",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(Hostile()), r"asks for posix.system, which is not allowed"),
        (b"cbuiltins\neval\n(S'1'\ntR.", r"asks for builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", r"asks for numpy.load"),
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "array of objects"),
        (b"(dp0", "damaged pickle"),
        (b"", "damaged pickle"),
    ],
)
def test_a_hostile_pickle_runs_nothing(tmp_path, data, reason):
    with pytest.raises(DatasetError, match=reason):
        unpickle(data)
    with pytest.raises(DatasetError, match=reason):
        read_cifar10([make_tar(tmp_path / "x.tar.gz", {"data_batch_1": data})])


@pytest.mark.parametrize("data", [b"}.", b"].", b"}U\x04dataK\x01sU\x06labels](K\x01es."])
def test_a_pickle_of_another_form_is_named(tmp_path, data):
    with pytest.raises(DatasetError, match="data_batch_1 is not a CIFAR-10 batch"):
        read_cifar10([make_tar(tmp_path / "x.tar.gz", {"data_batch_1": data})])


def test_a_truncated_archive_is_named(tmp_path):
    path = archive(tmp_path / "x.tar.gz", per_batch=4)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ArchiveError, match="damaged or truncated"):
        read_cifar10([path])
