"""Where a file or folder of a dataset is: in the mirror, here, in the cache, or fetched to it."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from pipeline.artifacts.local_cache import cache
from pipeline.data.datasets import SourceFile
from pipeline.data.readers.content import Caps, digest
from pipeline.data.readers.reader import Columns, Entry
from pipeline.data.readers.readers import ENDINGS, entries, reader_of
from pipeline.errors import ArchiveError, DatasetError, DownloadError
from pipeline.sources import objects
from pipeline.sources.addresses import MIRROR, file_name, is_object, is_url
from pipeline.sources.download import download
from pipeline.sources.patience import Patience
from pipeline.sources.urls import fetch_images

ROWS_LOOKED_AT = 1000


@dataclass(frozen=True)
class Found:
    """A file or folder on this machine, verified where there is a checksum.

    Attributes:
        path: where it is.
        source: the source it comes from, also if the mirror delivered it.
        sha256: the sha256 of a file's content; None for a folder.
        address: where it was fetched from; empty for what is here.
    """

    path: Path
    source: str
    sha256: str | None
    address: str = ""

    def origin(self, name: str) -> dict[str, str]:
        """Say where it is from, under a name; what a mirror delivered is named by its source."""
        return {"file": name, "from": self.source, "sha256": self.sha256 or ""}


def locate(
    dataset: str,
    file: SourceFile,
    *,
    caps: Caps | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> Found:
    """Find a file on this machine, or download it to the cache.

    Args:
        dataset: its name, a folder of the mirror and of the cache.
        file: what to look for, with its checksums.
        caps: limits of what is read from it.
        patience: how long to wait for servers.
        progress: whether to show a bar.

    Raises:
        DownloadError: no source has it; names each with its reason.
        ArtifactError: the cache cannot be written.
    """
    reasons, retryable = [], False
    for place, source in _places(dataset, file):
        try:
            if not is_url(place):
                path = Path(place).expanduser()
                return Found(path, source, _verify_here(path, file, caps))
            path = cache() / dataset / file.name
            fetch = objects.fetch if is_object(place) else download
            sha256 = fetch(
                place,
                path,
                lambda candidate: verify(candidate, file, caps),
                pinned=file.pinned,
                patience=patience,
                progress=progress,
            )
            return Found(path, source, sha256, place)
        except DatasetError as error:
            reasons.append(f"{place}: {error}")
            retryable = retryable or error.retryable
    raise DownloadError(
        f"cannot get {file.name} of {dataset}: {'; '.join(reasons)}; {_advice(dataset, file)}",
        retryable,
    )


def locate_images(
    dataset: str,
    source: Found,
    columns: Columns,
    images: str | None,
    *,
    caps: Caps | None = None,
    progress: bool = True,
) -> tuple[Columns, tuple[Found, ...]]:
    """Find the images that a table names: beside it, in a folder or archive, or by URL.

    Args:
        dataset: its name.
        source: the table; a source that is no table has its images itself.
        columns: the columns of the table.
        images: the folder or archive, looked for as a source is.
        caps: limits of what is read.
        progress: whether to show a bar.

    Returns:
        The columns, which now say where the files are, and the folder or archive if there is one.

    Raises:
        DatasetError: the table is wrong, or its images are not to be had.
    """
    found: tuple[Found, ...] = ()
    table = source.path
    if images:
        file = SourceFile(file_name(images), (images,))
        found = (locate(dataset, file, caps=caps, progress=progress),)
    else:
        columns = columns.with_address(source.address)
    if reader_of(table).table:
        urls = _urls(entries(table, caps, columns), table.suffix.lower() != ".parquet")
        first = next(urls, None)
        if first is not None:
            fetch_images(chain([first], urls), (caps or Caps()).file_bytes, progress=progress)
    if found:
        columns = columns.with_images(found[0].path)
    return columns, found


def _urls(found: Iterable[Entry], everything: bool) -> Iterator[str]:
    named = 0
    for number, entry in enumerate(found):
        if entry.url:
            named += 1
            yield entry.url
        # Its rows are images themselves, and reading all of them would take long.
        if not everything and not named and number > ROWS_LOOKED_AT:
            return


def verify(path: Path, file: SourceFile, caps: Caps | None = None) -> str:
    """Compare the content of a file with its checksums, and return its sha256.

    Raises:
        DatasetError: it is a different, truncated or altered file.
    """
    try:
        found = digest(path, ("sha256", "md5") if file.md5 else ("sha256",), caps)
    except OSError as error:
        raise DatasetError(error.strerror or str(error)) from error
    for expected, received in zip((file.sha256, file.md5), found, strict=False):
        if expected and received != expected:
            raise DatasetError(f"its content has the checksum {received}, not {expected}")
    if file.members:
        _verify_members(path, file, caps)
    return found[0]


def _verify_members(path: Path, file: SourceFile, caps: Caps | None) -> None:
    missing = dict(file.members)
    for entry in entries(path, caps):
        name = PurePosixPath(entry.name).name
        expected = missing.pop(name, None)
        if expected and (received := hashlib.md5(entry.read()).hexdigest()) != expected:
            raise ArchiveError(f"its member {name} has the checksum {received}, not {expected}")
    if missing:
        raise ArchiveError(f"it lacks {', '.join(missing)}")


def _verify_here(path: Path, file: SourceFile, caps: Caps | None) -> str | None:
    if not path.exists():
        raise DatasetError("no such file or folder")
    if not path.is_dir():
        return verify(path, file, caps)
    if file.pinned:
        raise DatasetError("is a folder, but a checksum is that of an archive")
    return None


def _places(dataset: str, file: SourceFile) -> Iterator[tuple[str, str]]:
    """Yield where to look and which source that is: the mirror first, then each source."""
    mirror = os.environ.get(MIRROR)
    # A mirror does not stand in for an absolute path, nor a URL of one for a folder.
    sources = [s for s in file.sources if is_url(s) or not Path(s).expanduser().is_absolute()]
    if mirror and sources and (_has_folders(mirror) or file.name.endswith((*ENDINGS, ".gz"))):
        yield f"{mirror.rstrip('/')}/{dataset}/{file.name}", sources[0]
    for source in file.sources:
        yield source, source


def _has_folders(place: str) -> bool:
    return is_object(place) or not is_url(place)


def _advice(dataset: str, file: SourceFile) -> str:
    advice = f"set {MIRROR} to a folder or URL that holds {dataset}/{file.name}"
    here = [source for source in file.sources if not is_url(source)]
    return f"{advice}, or put the file at {here[0]}" if here else advice
