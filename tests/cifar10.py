"""A small archive in the format of the official CIFAR-10 one, pickled as Python 2 did."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.images import make_tar

NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
Batch = tuple[NDArray[np.uint8], list[int]]


def batches(per_batch: int) -> dict[str, Batch]:
    """Return pixels, (n, 3072), and labels of each batch."""
    rng = np.random.default_rng(0)
    return {
        name: (
            rng.integers(0, 256, (per_batch, 3072), np.uint8),
            [(number + row) % 10 for row in range(per_batch)],
        )
        for number, name in enumerate((*NAMES, "test_batch"))
    }


def _text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def batch(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """Write what Python 2.7's pickle, protocol 2, makes of one batch."""
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    size = b"M" + struct.pack("<H", len(labels)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    data = pixels.tobytes()
    dtype = (
        b"cnumpy\ndtype\n" + _text(b"u1") + b"K\x00K\x01\x87R(K\x03" + _text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )  # fmt: skip
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text(b"b")
        + b"\x87R(K\x01" + size + dtype + b"\x89T" + struct.pack("<I", len(data)) + data + b"tb"
    )  # fmt: skip
    return b"\x80\x02}(" + _text(b"labels") + numbers + _text(b"data") + array + b"u."


def members(per_batch: int) -> dict[str, bytes]:
    """Return the archive's members by name."""
    return {name: batch(*content) for name, content in batches(per_batch).items()}


def archive(path: Path, per_batch: int) -> Path:
    """Write the archive, folder and all."""
    content = {f"cifar-10-batches-py/{name}": data for name, data in members(per_batch).items()}
    return make_tar(path, content)
