"""Shards of webdataset: tar files in which the members of an image have one name."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from pipeline.artifacts.datasets import Split
from pipeline.data.readers.archives import tar_entries
from pipeline.data.readers.content import Caps
from pipeline.data.readers.folder import holds
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.splitnames import split_named
from pipeline.errors import ArchiveError, DatasetError
from pipeline.images import has_image_ending

CLASS, DETAILS = ".cls", ".json"
LABELS = ("label", "class", "cls", "class_name")
MEMBERS_LOOKED_AT = 8


def is_shard(path: Path) -> bool:
    """Return whether a file is a tar whose first members have a class beside an image."""
    if not path.is_file():
        return False
    try:
        first = [entry.name for entry in islice(tar_entries(path, Caps()), MEMBERS_LOOKED_AT)]
    except ArchiveError:
        return False
    return any(_ending(name) == CLASS for name in first)


def is_shard_folder(path: Path) -> bool:
    """Return whether a folder holds shards."""
    return holds(path, ".tar") and is_shard(_shards(path)[0])


def shard_entries(path: Path, caps: Caps, columns: Columns) -> Iterator[Entry]:
    """List the images of a shard, or of all shards of a folder, with their classes.

    A class is the text of a member `.cls`, or a value of a member `.json`. The split is said by
    the shard's name, such as `train-000.tar`.

    Raises:
        DatasetError: an image has no class.
        ArchiveError: a shard is damaged or hostile.
    """
    for shard in _shards(path) if path.is_dir() else [path]:
        split = split_named(shard.name.split("-")[0].split(".")[0])
        sample: dict[str, bytes] = {}
        key = ""
        for entry in tar_entries(shard, caps):
            if entry.name.endswith("/"):
                continue
            if (its := _key(entry.name)) != key:
                yield from _sample(shard, key, sample, split)
                key, sample = its, {}
            sample[_ending(entry.name)] = entry.read()
        yield from _sample(shard, key, sample, split)


def _sample(
    shard: Path, key: str, members: dict[str, bytes], split: Split | None
) -> Iterator[Entry]:
    """Yield the image of a sample, if it has one."""
    image = next((ending for ending in members if has_image_ending(ending)), None)
    if image is None:
        return
    data = members[image]
    label = members.get(CLASS, b"").decode(errors="replace").strip()
    if not label and DETAILS in members:
        label = _label(shard, key, members[DETAILS])
    if not label:
        raise DatasetError(f"{shard.name}: {key}{image} has no class: no {key}{CLASS} is beside it")
    yield Entry(f"{shard.name}/{key}{image}", lambda: data, label, split)


def _label(shard: Path, key: str, text: bytes) -> str:
    try:
        details = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{shard.name}: {key}{DETAILS} is no JSON: {error}") from error
    return next((str(details[name]) for name in LABELS if name in details), "")


def _key(name: str) -> str:
    """Return the name without its endings; they begin at the first dot of the last part."""
    return name[: len(name) - len(_ending(name))]


def _ending(name: str) -> str:
    _, dot, ending = PurePosixPath(name).name.partition(".")
    return f"{dot}{ending}".lower()


def _shards(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*.tar") if file.is_file())
