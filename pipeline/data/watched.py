"""The path by which DVC watches the source of a dataset: `data/watched/<dataset>`."""

import os
from pathlib import Path

from pipeline.data.settings import ImageFolder
from pipeline.errors import ArtifactError
from pipeline.sources.addresses import is_url

EMPTY = ".gitkeep"
TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})


def watch(place: Path, entry: ImageFolder | None) -> None:
    """Make the link to the source on this machine, or an empty folder where there is none.

    Args:
        place: `data/watched/<dataset>`, which `ingest` depends on.
        entry: the entry of params.yaml; None for a known dataset.

    Raises:
        ArtifactError: there is something else.
    """
    source = _here(entry)
    if source is not None and source.suffix.lower() in TABLES:
        source = _with_images(source, place)
    if source is None:
        if place.is_symlink():
            place.unlink()
        place.mkdir(parents=True, exist_ok=True)
        (place / EMPTY).touch()
        return
    absolute = source.is_absolute()
    target = str(source) if absolute else os.path.relpath(source, place.parent)
    if place.is_symlink() and place.readlink() == Path(target):
        return
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        _clear(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def _clear(place: Path) -> None:
    """Remove the empty folder of a dataset that was downloaded before."""
    (place / EMPTY).unlink(missing_ok=True)
    try:
        place.rmdir()
    except OSError as error:
        raise ArtifactError(
            f"{place} is for the link to the source and cannot be removed: {error.strerror}; what "
            "is in it belongs into data/own"
        ) from error


def _with_images(table: Path, place: Path) -> Path:
    """Return the folder of a table, in which its images are, unless all of ours is in there."""
    folder = table.parent
    return table if place.absolute().is_relative_to(folder.absolute()) else folder


def _here(entry: ImageFolder | None) -> Path | None:
    """Return the source that is on this machine, if one is."""
    sources = entry.sources if entry else ()
    paths = (Path(source).expanduser() for source in sources if not is_url(source))
    return next((path for path in paths if path.exists()), None)
