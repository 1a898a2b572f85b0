"""Which registered versions were trained, validated or tested on some images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.artifacts.datasets import contents_of_sha256
from pipeline.registry import model_files, versions
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import Registered

DONE = {"train": "trained", "val": "validated", "test": "tested"}
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Use:
    """What a registered version did with an image.

    Attributes:
        what: `trained`, `validated` or `tested`, or `not recorded` where it was registered before
            versions had a record of their images.
        how: how the image was found; empty where not recorded.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    what: str
    how: str = ""


class Records:
    """The images of all registered versions, read once.

    Raises:
        ArtifactError: a record is not what was registered.
        TrackingError: the store cannot be reached.
    """

    def __init__(self) -> None:
        self._records: list[tuple[Registered, VersionImages | None]] = [
            (version, model_files.read_images(version))
            for name in versions.names()
            for version in versions.all_of(name)
        ]

    def __iter__(self) -> Iterator[tuple[Registered, VersionImages | None]]:
        """Yield each version and its images; None where it has no record."""
        return iter(self._records)

    def uses(self, contents: Mapping[str, str]) -> Iterator[Use]:
        """Yield what versions did with an image.

        Args:
            contents: each sha256 that it may be known by, and how that was found.
        """
        for version, images in self._records:
            where = version.name, version.version, version.aliases
            if images is None:
                yield Use(*where, NOT_RECORDED)
                continue
            for content, how in contents.items():
                for split, done in DONE.items():
                    if contains(getattr(images, split), content):
                        yield Use(*where, done, how)


def contains(known: "np.typing.NDArray[np.uint64]", sha256: str) -> bool:
    """Return whether an image is one of some, which are sorted."""
    key = contents_of_sha256([sha256])[0]
    at = int(np.searchsorted(known, key))
    return at < len(known) and bool(known[at] == key)
