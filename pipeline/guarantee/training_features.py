"""How far the features of an image are from those of the training images.

The features are what the last layer decides by. Two distances say whether an image is like those
that the model knows: the angle to the nearest of at most 1,000 training images (Sun et al., 2022,
"Out-of-Distribution Detection with Deep Nearest Neighbors"), which noise differs in, and the
Mahalanobis distance to their mean (Lee et al., 2018), where a strange image may have too much of
something.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.files import atomic
from pipeline.errors import ArtifactError

FILE_NAME = "training_features.npz"
MOST_IMAGES, FEWEST_IMAGES, MOST_AXES = 1000, 20, 128
# Of each array in the file: long features are compared with fewer images, along fewer axes.
_MOST_NUMBERS = 2_000_000
# Of the mean variance in every variance, as few images show little of many directions.
_SHRINKAGE = 0.01
# Of features that are all the same, or along an axis that is one too many.
_NO_VARIANCE = 1e-12

Features = NDArray[np.float32]  # (n, size)
Floats = NDArray[np.float32]


class Distances(NamedTuple):
    """How far images are from the training images, (n,) each.

    Attributes:
        turned: the cosine distance to the nearest training image.
        far: the Mahalanobis distance to the mean of the training images.
    """

    turned: Floats
    far: Floats


def images_to_keep(size: int) -> int:
    """Return with how many training images features of this size are compared."""
    return max(FEWEST_IMAGES, min(MOST_IMAGES, _MOST_NUMBERS // size))


@dataclass(frozen=True)
class TrainingFeatures:
    """The features of some training images.

    Attributes:
        directions: (n, size), each of length 1; rounded to 16 bits, and stored as these.
        mean: (size,).
        axes: (size, k), the main directions in which they vary.
        variances: (k + 1,): along each axis, and at last along any other direction.
    """

    directions: Floats
    mean: Floats
    axes: Floats
    variances: Floats

    @classmethod
    def of(cls, features: Features) -> Self:
        """Keep what is needed of some training images, at least one."""
        from scipy.linalg import eigh  # not needed where a model answers

        count, size = features.shape
        mean = features.mean(axis=0)
        centred = (features - mean).astype(np.float64)
        # As there are at most 1,000 images, faster than the singular values of long features.
        kept = min(MOST_AXES, count, size, max(1, _MOST_NUMBERS // size))
        which = (count - kept, count - 1)
        variances, weights = eigh(centred @ centred.T / count, subset_by_index=which)
        main = np.maximum(variances, _NO_VARIANCE)
        average = (centred**2).sum() / count / size
        others = max(average * size - main.sum(), 0) / max(size - kept, 1)
        shrunk = (1 - _SHRINKAGE) * np.append(main, others) + _SHRINKAGE * average
        axes = centred.T @ weights / np.sqrt(main * count)
        return cls(
            _directions(features).astype(np.float16).astype(np.float32),
            mean,
            axes.astype(np.float32),
            np.maximum(shrunk, _NO_VARIANCE).astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            ArtifactError: it is missing or torn.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(
                    **{name: file[name].astype(np.float32) for name in cls.__dataclass_fields__}
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"cannot read {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the file; equal features give equal bytes."""
        with atomic(path) as part, part.open("wb") as file:
            content = vars(self) | {"directions": self.directions.astype(np.float16)}
            np.savez(file, allow_pickle=False, **content)

    def distances(self, features: Features) -> Distances:
        """Return how far images are from the training images by their features."""
        cosines = _directions(features) @ self.directions.T
        centred = features - self.mean
        along = (centred @ self.axes) ** 2
        others = np.maximum((centred**2).sum(axis=1) - along.sum(axis=1), 0)
        squares = (along / self.variances[:-1]).sum(axis=1) + others / self.variances[-1]
        return Distances(1 - cosines.max(axis=1), np.sqrt(squares))


def _directions(features: Features) -> Features:
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    directions: Features = features / lengths
    return directions
