"""The datasets of `benchmarks/device.sh`: packed into one file, and unpacked into arrays."""

import gzip
import io
import lzma
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(os.environ.get("BENCH_DATA", ".benchmarks/device"))
LIMIT = int(os.environ.get("BENCH_LIMIT", "0")) or None
CIFAR10 = "cifar10_images"
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
Arrays = dict[str, NDArray[Any]]


def pack(folder: str) -> None:
    """Compress the raw files of the mirror into one file."""
    mirror, made = Path(os.environ["DATASET_MIRROR"]), Path(folder) / "data.tar"
    with tarfile.open(made, "w") as tar:
        tar.add(mirror / CIFAR10 / f"{CIFAR10}.tar.gz", f"{CIFAR10}.tar.gz")
        for dataset in ("fashion_mnist", "mnist"):
            for name in IDX:
                raw = gzip.decompress((mirror / dataset / f"{name}.gz").read_bytes())
                small = lzma.compress(raw, preset=6)
                entry = tarfile.TarInfo(f"{dataset}/{name}.xz")
                entry.size = len(small)
                tar.addfile(entry, io.BytesIO(small))
    print(f"{made}: {made.stat().st_size / 2**20:.0f} MiB")


def prepare(archive: str) -> None:
    """Unpack into arrays; a tenth of the training images becomes the validation split."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    _save(CIFAR10, *_photographs(files[f"{CIFAR10}.tar.gz"]))
    for dataset in ("fashion_mnist", "mnist"):
        read = [lzma.decompress(files[f"{dataset}/{name}.xz"]) for name in IDX]
        x, xt = (np.frombuffer(read[at], np.uint8, offset=16) for at in (0, 2))
        y, yt = (np.frombuffer(read[at], np.uint8, offset=8).astype(np.int64) for at in (1, 3))
        _save(dataset, x.reshape(-1, 28, 28, 1), y, xt.reshape(-1, 28, 28, 1), yt)


def _photographs(packed: bytes) -> tuple[NDArray[Any], ...]:
    """Decode `<split>/<class>/<file>.jpg`."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        raw = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    names = sorted(raw)
    parts = [name.split("/")[-3:] for name in names]
    classes = sorted({part[1] for part in parts})
    with ProcessPoolExecutor() as pool:
        x = np.stack(list(pool.map(_decode, [raw[name] for name in names], chunksize=500)))
    y = np.array([classes.index(part[1]) for part in parts])
    train = np.array([part[0] == "train" for part in parts])
    return x[train], y[train], x[~train], y[~train]


def _decode(raw: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


def _save(dataset: str, x: Any, y: Any, x_test: Any, y_test: Any) -> None:
    (DATA / dataset).mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(x))[: LIMIT and LIMIT * 10]
    cut = len(order) // 10
    val, train = np.sort(order[:cut]), np.sort(order[cut:][:LIMIT])
    test = slice(0, LIMIT)
    arrays = {"train": (x[train], y[train]), "val": (x[val], y[val])}
    for split, (images, labels) in {**arrays, "test": (x_test[test], y_test[test])}.items():
        np.save(DATA / dataset / f"x_{split}.npy", images)
        np.save(DATA / dataset / f"y_{split}.npy", labels)


def load(dataset: str) -> Arrays:
    """Return the arrays of a dataset."""
    return {path.stem: np.load(path) for path in (DATA / dataset).glob("*.npy")}
