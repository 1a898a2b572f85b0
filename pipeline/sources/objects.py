"""A file or a folder from an object store: only what changed is fetched, in parallel."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from pipeline.artifacts.record import Record
from pipeline.errors import ArtifactError, DownloadError
from pipeline.parallel import spread
from pipeline.sources.download import kept
from pipeline.sources.patience import Patience, locked
from pipeline.sources.progress import bar
from pipeline.sources.stores import Object, ObjectStore

AT_ONCE = 16
# An object is fetched in parts, so that what breaks off costs one of them.
PART = 1 << 23


class Fetched(Record):
    """`<file or folder>.objects.json`: what the cache has of an address.

    Attributes:
        address: where it is from.
        states: by name, the state of each object as it was fetched.
    """

    address: str
    states: dict[str, str]


def fetch(
    address: str,
    target: Path,
    verify: Callable[[Path], str],
    *,
    pinned: bool,
    patience: Patience | None = None,
    progress: bool = True,
) -> str | None:
    """Bring a file or folder of an object store here, as far as it is not here already.

    Args:
        address: such as `s3://bucket/flowers`.
        target: where it goes: a file, or a folder, from which goes what the store no longer has.
        verify: returns the checksum of a file; raises a DatasetError unless it is the right one.
        pinned: whether `verify` knows the checksum: then a file that is there is not asked for.
        patience: how long to wait.
        progress: whether to show a bar.

    Returns:
        What `verify` does; None for a folder.

    Raises:
        DownloadError: the store does not deliver; says why.
        ArtifactError: the cache cannot be written.
    """
    patience = patience or Patience()
    with locked(target):
        if pinned and target.is_file() and (checksum := kept(target, verify)):
            return checksum
        store = ObjectStore(address, patience)
        objects = patience.retrying()(store.find, address)
        if pinned and objects[0].name:
            raise DownloadError("is a folder, but a checksum is that of a file")
        _update(store, address, objects, target, patience, progress)
        return None if objects[0].name else verify(target)


def _update(
    store: ObjectStore,
    address: str,
    objects: list[Object],
    target: Path,
    patience: Patience,
    progress: bool,
) -> None:
    """Make the target what the store has."""
    record = target.with_name(f"{target.name}.objects.json")
    states = _known(record, address)
    _remove_other(target, objects)
    wanted = [each for each in objects if not _is_here(each, target, states)]
    total = sum(each.size for each in wanted)
    try:
        with bar(f"download {target.name}", total, progress, in_bytes=True) as advance:
            work = partial(fetch_one, store, target=target, patience=patience, advance=advance)
            with closing(spread(work, wanted, threads=AT_ONCE)) as done:
                for each in done:
                    states[each.name] = each.state
    finally:
        # Also where it broke off, so that the next time is about the rest.
        names = {each.name for each in objects}
        here = {name: state for name, state in states.items() if name in names}
        Fetched(address=address, states=here).save(record)


def _known(record: Path, address: str) -> dict[str, str]:
    try:
        known = Fetched.load(record)
    except ArtifactError:
        return {}
    return dict(known.states) if known.address == address else {}


def _is_here(each: Object, target: Path, states: dict[str, str]) -> bool:
    file = target / each.name
    # Without a state nothing tells whether it changed.
    same = bool(each.state) and states.get(each.name) == each.state
    return same and file.is_file() and file.stat().st_size == each.size


def _remove_other(target: Path, objects: list[Object]) -> None:
    """Remove what the store no longer has."""
    if target.is_dir() and not objects[0].name:
        shutil.rmtree(target)
    elif target.is_file() and objects[0].name:
        target.unlink()
    elif target.is_dir():
        names = {each.name for each in objects}
        for file in [path for path in target.rglob("*") if not path.is_dir()]:
            if file.relative_to(target).as_posix() not in names:
                file.unlink()
        for folder in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def fetch_one(
    store: ObjectStore,
    each: Object,
    target: Path,
    patience: Patience,
    advance: Callable[[int], None],
) -> Object:
    """Write an object whole or not at all, and return it.

    Args:
        store: where it is.
        each: which.
        target: the folder it goes to; the file itself where the object has no name.
        patience: how long to wait.
        advance: is told of bytes that have come.

    Raises:
        DownloadError: the store does not deliver.
    """
    file = target / each.name
    file.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and removed the next time should the process die.
    part = file.with_name(f".{os.getpid()}-{file.name}.part")
    try:
        with part.open("wb") as written:
            for start in range(0, each.size, PART):
                end = min(start + PART, each.size)
                data = patience.retrying()(store.read, each, start, end)
                written.write(data)
                advance(len(data))
        if each.size > PART:
            patience.retrying()(store.check, each)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return each
