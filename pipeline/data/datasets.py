"""The known datasets: their files, contents and licences.

Checksums are of the decompressed content, so that a file that was gzipped anew still matches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.readers.arrays import Arrays, read_cifar10, read_digits, read_mnist
from pipeline.data.readers.content import Caps
from pipeline.errors import ParamsError


@dataclass(frozen=True)
class SourceFile:
    """One of the files of a dataset.

    Attributes:
        name: in the mirror and in the cache.
        sources: URLs or paths, tried in this order.
        md5: the md5 of its decompressed content.
        sha256: the sha256 of that.
        members: md5 of the members that an archive must have, by the last part of their name.
    """

    name: str
    sources: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None
    members: Mapping[str, str] = field(default_factory=dict)

    @property
    def pinned(self) -> bool:
        """Whether a checksum identifies the right file."""
        return bool(self.md5 or self.sha256 or self.members)


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that needs no entry in params.yaml.

    Attributes:
        read: makes arrays of its files, within the caps.
        image_shape: height, width, channels.
        intended_use: what it was made for; model cards quote it.
        expected: images per split.
    """

    name: str
    read: Callable[[Sequence[Path], Caps | None], Arrays]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    expected: Mapping[str, int]
    licence: str
    intended_use: str
    files: tuple[SourceFile, ...] = ()


DIGIT_NAMES = tuple("0123456789")


def _idx(name: str, md5: str, *folders: str) -> SourceFile:
    return SourceFile(f"{name}.gz", tuple(f"{folder}/{name}.gz" for folder in folders), md5=md5)


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_FASHION_MNIST = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
)

_DATASETS = (
    KnownDataset(
        name="digits",
        read=read_digits,
        image_shape=(8, 8, 1),
        class_names=DIGIT_NAMES,
        expected={"train": 1438, "test": 359},
        licence="CC BY 4.0 (Alpaydin, Kaynak 1998; UCI Machine Learning Repository)",
        intended_use=(
            "Recognising single handwritten digits in gray images of 8x8 pixels: for teaching, and "
            "for trying out methods and pipelines."
        ),
    ),
    KnownDataset(
        name="fashion_mnist",
        read=read_mnist,
        image_shape=(28, 28, 1),
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        expected={"train": 60_000, "test": 10_000},
        licence="MIT (Zalando SE 2017; Xiao, Rasul, Vollgraf, arXiv:1708.07747)",
        intended_use=(
            "Comparing methods of machine learning: ten kinds of articles from the catalogue of an "
            "online shop, in gray images of 28x28 pixels. It was made to take the place of MNIST."
        ),
        files=(
            _idx("train-images-idx3-ubyte", "f4a8712d7a061bf5bd6d2ca38dc4d50a", *_FASHION_MNIST),
            _idx("train-labels-idx1-ubyte", "9018921c3c673c538a1fc5bad174d6f9", *_FASHION_MNIST),
            _idx("t10k-images-idx3-ubyte", "8181f5470baa50b63fa0f6fddb340f0a", *_FASHION_MNIST),
            _idx("t10k-labels-idx1-ubyte", "15d484375f8d13e6eb1aabb0c3f46965", *_FASHION_MNIST),
        ),
    ),
    KnownDataset(
        name="mnist",
        read=read_mnist,
        image_shape=(28, 28, 1),
        class_names=DIGIT_NAMES,
        expected={"train": 60_000, "test": 10_000},
        licence="CC BY-SA 3.0 (Yann LeCun, Corinna Cortes, Christopher Burges)",
        intended_use=(
            "Comparing methods of machine learning, and teaching them: single handwritten digits, "
            "size-normalised and centred in gray images of 28x28 pixels."
        ),
        files=(
            _idx("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", *_MNIST),
            _idx("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", *_MNIST),
            _idx("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", *_MNIST),
            _idx("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", *_MNIST),
        ),
    ),
    KnownDataset(
        name="cifar10",
        read=read_cifar10,
        image_shape=(32, 32, 3),
        class_names=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        expected={"train": 50_000, "test": 10_000},
        licence="not stated (cite Krizhevsky 2009, Learning Multiple Layers of Features)",
        intended_use=(
            "Research on the recognition of objects: ten kinds of animals and vehicles, in colour "
            "images of 32x32 pixels."
        ),
        files=(
            SourceFile(
                "cifar-10-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                members={
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
                },
            ),
        ),
    ),
)  # fmt: skip
DATASETS = {dataset.name: dataset for dataset in _DATASETS}


def known_names() -> tuple[str, ...]:
    """Return the names that `dataset` in params.yaml may have without an entry."""
    return tuple(DATASETS)


def get(name: str) -> KnownDataset:
    """Return a known dataset.

    Raises:
        ParamsError: it is not known; says which are, and how to add one's own.
    """
    if name not in DATASETS:
        raise ParamsError(
            f"unknown dataset {name!r}; known: {', '.join(DATASETS)}; "
            "own images need an entry under datasets in params.yaml"
        )
    return DATASETS[name]
