"""Finds the file with the weights of a backbone: in a package, a mirror, the cache, or the web."""

import hashlib
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pipeline.artifacts.local_cache import cache
from pipeline.errors import ArtifactError, DatasetError, DownloadError
from pipeline.models.backbones.weights import Weights
from pipeline.sources import objects
from pipeline.sources.addresses import MIRROR, is_object, is_url
from pipeline.sources.download import download
from pipeline.sources.patience import Patience

FOLDER = "backbones"  # of DATASET_MIRROR and of the cache
# Names a folder or URL that holds files of weights and is asked first.
BACKBONE_MIRROR = "BACKBONE_MIRROR"


def fetch(weights: Weights, patience: Patience | None = None, progress: bool = True) -> Path:
    """Return the file on this machine, verified where its checksum is known.

    Args:
        weights: which file.
        patience: how long to wait for servers.
        progress: whether to show a bar.

    Raises:
        DownloadError: nobody has it; says where it was looked for, and where to put it.
        ArtifactError: the package with the file is damaged, or the cache cannot be written.
    """
    if weights.package:
        return _of_package(weights)
    kept = cache() / FOLDER / weights.file
    reasons, retryable = [], False
    for place in _places(weights, kept):
        try:
            if not is_url(place):
                verify(Path(place), weights)
                return Path(place)
            get = objects.fetch if is_object(place) else download
            get(
                place,
                kept,
                lambda path: verify(path, weights),
                pinned=bool(weights.file_sha256 or weights.file_md5),
                patience=patience,
                progress=progress,
            )
            return kept
        except DatasetError as error:
            reasons.append(f"{place}: {error}")
            retryable = retryable or error.retryable
    raise DownloadError(
        f"cannot get the weights {weights.file} of {weights.name}: {'; '.join(reasons)}; download "
        f"{weights.address} where you can and put it at {kept}, or set {BACKBONE_MIRROR} to a "
        f"folder or URL that holds it",
        retryable,
    )


def verify(path: Path, weights: Weights) -> str:
    """Compare a file with the checksum of the official one, if it is known; return its sha256.

    Raises:
        DatasetError: it is missing, or another file.
    """
    found = {}
    try:
        with path.open("rb") as file:
            for name in ("sha256", "md5"):
                file.seek(0)
                found[name] = hashlib.file_digest(file, name).hexdigest()
    except FileNotFoundError as error:
        raise DatasetError("no such file") from error
    except OSError as error:
        raise DatasetError(error.strerror or str(error)) from error
    for name, expected in (("sha256", weights.file_sha256), ("md5", weights.file_md5)):
        if expected and found[name] != expected:
            raise DatasetError(f"its {name} is {found[name]}, not {expected}")
    return found["sha256"]


def _places(weights: Weights, kept: Path) -> Iterator[str]:
    if mirror := os.environ.get(BACKBONE_MIRROR):
        yield f"{mirror.rstrip('/')}/{weights.file}"
    if mirror := os.environ.get(MIRROR):
        yield f"{mirror.rstrip('/')}/{FOLDER}/{weights.file}"
    # Without a checksum a file is trusted where somebody put it, and its arrays are checked.
    yield str(kept)
    yield weights.address


def _of_package(weights: Weights) -> Path:
    try:
        path = Path(str(distribution(weights.package).locate_file(weights.file)))
        verify(path, weights)
    except (PackageNotFoundError, DatasetError) as error:
        raise ArtifactError(
            f"the weights {weights.file} of the package {weights.package} cannot be used: "
            f"{error}; install the locked requirements again: make setup"
        ) from error
    return path
