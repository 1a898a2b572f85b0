"""The files that known datasets come in -> arrays."""

import pickle  # noqa: TID251 (`_Unpickler` looks up three names and no other)
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels, Pixels, Split
from pipeline.data.readers.archives import tar_entries
from pipeline.data.readers.content import Caps, open_content
from pipeline.data.splits import stratified
from pipeline.errors import DatasetError

UNSIGNED_BYTE = 0x08
DIGITS_TEST_FRACTION = 0.2
Arrays = dict[Split, tuple[Pixels, Labels]]  # images (n, height, width, channels) or (n, h, w)
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def read_digits(paths: Sequence[Path] = (), caps: Caps | None = None) -> Arrays:
    """Read the digits that come with scikit-learn, and draw their test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()  # pixels are 0 to 16
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)
    y = digits.target.astype(np.int64)
    test = stratified(y, DIGITS_TEST_FRACTION, seed=0)
    return {"train": (x[~test], y[~test]), "test": (x[test], y[test])}


def read_mnist(paths: Sequence[Path], caps: Caps | None = None) -> Arrays:
    """Read MNIST, or a dataset laid out as it is: images and labels of train, then of test.

    Raises:
        DatasetError: see `read_idx`.
    """
    x_train, y_train, x_test, y_test = (read_idx(path, caps) for path in paths)
    return {
        "train": (x_train, y_train.astype(np.int64)),
        "test": (x_test, y_test.astype(np.int64)),
    }


def read_idx(path: Path, caps: Caps | None = None) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The format is described at the MNIST database: two zero bytes, the type, the number of
    dimensions, each dimension as a big-endian 32-bit integer, then the values.

    Raises:
        DatasetError: it is no such file, or shorter or longer than its header says.
    """
    with open_content(path, caps) as content:
        data = b"".join(iter(content.read, b""))
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise DatasetError(f"{path.name} is not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if len(data) != start + (size := int(np.prod(shape, dtype=object))):
        raise DatasetError(
            f"{path.name} holds {len(data) - start:,} values, its header says {size:,}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar10(paths: Sequence[Path], caps: Caps | None = None) -> Arrays:
    """Read CIFAR-10's archive of pickled batches without running what is in it.

    Raises:
        DatasetError: a batch is missing, is not of this form, or asks for any other object.
    """
    (path,) = paths
    batches = {}
    for entry in tar_entries(path, caps or Caps()):
        name = PurePosixPath(entry.name).name
        if name in (*TRAIN_BATCHES, "test_batch"):
            batches[name] = _read_batch(name, entry.read())
    missing = [name for name in (*TRAIN_BATCHES, "test_batch") if name not in batches]
    if missing:
        raise DatasetError(f"{path.name} lacks {', '.join(missing)}")
    train = [batches[name] for name in TRAIN_BATCHES]
    x_train = np.concatenate([x for x, _ in train])
    y_train = np.concatenate([y for _, y in train])
    return {"train": (x_train, y_train), "test": batches["test_batch"]}


def _read_batch(name: str, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = unpickle(data)
    try:
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
        images = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f"{name} is not a CIFAR-10 batch: {error}") from error
    if images.dtype != np.uint8:
        raise DatasetError(f"{name} holds {images.dtype}, not uint8")
    return images, labels


def unpickle(data: bytes) -> Any:
    """Unpickle what Python 2 and NumPy wrote: plain values and arrays of plain values.

    Raises:
        DatasetError: it is damaged, or asks for anything else, which is then not looked up.
    """
    try:
        return _Unpickler(BytesIO(data), encoding="bytes").load()
    except DatasetError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise DatasetError(f"damaged pickle: {error}") from error


def _dtype(name: bytes, align: int = 0, copy: int = 0) -> np.dtype[Any]:
    """Make a dtype as Python 2 wrote it; NumPy has deprecated its integer flags."""
    dtype: np.dtype[Any] = np.dtype(name.decode("ascii"))
    if dtype.hasobject:
        raise DatasetError("a pickle holds an array of objects; allowed: numbers")
    return dtype


class _Unpickler(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012 (typeshed has no ClassVar here either)
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few objects that an array needs."""
        if (module, name) not in self.ALLOWED:
            raise DatasetError(f"a pickle asks for {module}.{name}, which is not allowed")
        return self.ALLOWED[module, name]
