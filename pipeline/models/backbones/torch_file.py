"""Reads the tensors of a PyTorch file of the older format, without PyTorch, and runs nothing of it.

Such a file is five pickles (a magic number, a version, the system, the tensors, the keys of their
storages) and then each storage: how many values it has, and the values.
"""

import pickle  # noqa: TID251 (`_Unpickler` looks up four names and no other)
import sys
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pipeline.errors import ArtifactError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
COUNT_BYTES = 8  # the number of values before each storage, little-endian

Tensors = dict[str, NDArray[Any]]


def read_torch(path: Path) -> Tensors:
    """Read the tensors of a state dict by name.

    Raises:
        ArtifactError: it cannot be read, is torn or of another format, asks for an object that no
            tensor needs, or a tensor reaches beyond its storage.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return _read(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path} {error}") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise ArtifactError(f"{path} is a damaged file of PyTorch: {error}") from error


@dataclass(frozen=True)
class _Storage:
    """Values in a row, which come at the end of the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of the view, once it is known to lie within the values."""
        counts = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int for n in counts):
            raise ArtifactError("has a tensor without a shape")
        reach = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        if min(counts) < 0 or (not empty and self.offset + reach >= len(values)):
            raise ArtifactError("has a tensor that reaches beyond its storage")
        if prod(self.shape) > len(values):
            raise ArtifactError("has a tensor with more values than its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return as_strided(values[self.offset :], self.shape, strides).copy()


_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Unpickler(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012 (typeshed has no ClassVar here either)
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _Tensor(
            storage, offset, shape, strides
        ),
        **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for one of the few objects that a tensor needs."""
        if (module, name) not in self.ALLOWED:
            raise ArtifactError(f"asks for {module}.{name}, which is not allowed")
        return self.ALLOWED[module, name]

    def persistent_load(self, described: Any) -> _Storage:
        """Return a storage, whose values are not here yet."""
        kind, dtype, key, _, count, view = described
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise ArtifactError("has a storage of another kind")
        return _Storage(str(key), dtype, int(count))


def _read(data: bytes) -> Tensors:
    file = BytesIO(data)
    magic, protocol, system, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, protocol) != (MAGIC_NUMBER, PROTOCOL) or not system.get("little_endian"):
        raise ArtifactError("is not a file of PyTorch's older format, little-endian")
    if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ArtifactError("holds more than tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if len(storages) != len(keys) or set(storages) != set(keys):
        raise ArtifactError("names other storages than its tensors have")
    values = {key: _values(file, storages[key]) for key in keys}
    if file.read(1):
        raise ArtifactError("has more after its last storage")
    return {str(name): tensor.array(values[tensor.storage.key]) for name, tensor in tensors.items()}


def _values(file: BytesIO, storage: _Storage) -> NDArray[Any]:
    count = int.from_bytes(file.read(COUNT_BYTES), "little")
    size = count * storage.dtype.itemsize
    if count != storage.count or len(data := file.read(min(size, sys.maxsize))) != size:
        raise ArtifactError(f"is torn: it ends within storage {storage.key}")
    return np.frombuffer(data, storage.dtype)
