"""Which images a version was trained, validated and tested on: `images.npz`, by its passport."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Contents, Splits
from pipeline.artifacts.files import atomic
from pipeline.errors import ArtifactError

FILE_NAME = "images.npz"


@dataclass(frozen=True)
class VersionImages:
    """The images of a version by their content, see `Splits.contents`; an image may occur twice.

    Attributes:
        train: sorted, (n,).
        val: sorted.
        test: sorted.
        test_rows: those of `test`, in the order of the split, which is that of its predictions.
    """

    train: Contents
    val: Contents
    test: Contents
    test_rows: Contents

    @classmethod
    def of(cls, splits: Splits) -> Self:
        """Return the images of a dataset as it is here."""
        train, val, rows = (np.array(splits.contents(name)) for name in ("train", "val", "test"))
        return cls(np.sort(train), np.sort(val), np.sort(rows), rows)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            ArtifactError: it is missing or torn.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"cannot read {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the file; equal images give equal bytes."""
        with atomic(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **vars(self))

    def has_seen(self, contents: Contents) -> NDArray[np.bool_]:
        """Return of each image whether the version was trained or validated on it: (n,)."""
        return np.isin(contents, self.train) | np.isin(contents, self.val)
