"""The rows of a table and the files that they name, which lie in a folder or archive elsewhere."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipeline.data.readers.listing import is_system
from pipeline.data.readers.reader import Entry
from pipeline.errors import DatasetError, ImageError


def joined(rows: Iterator[Entry], files: Iterator[Entry], place: str) -> Iterator[Entry]:
    """List the images of a table in the order of their files; those without a file come last.

    Args:
        rows: the images as the table names them.
        files: what the folder or archive holds; folders around all that the rows name are skipped.
        place: its name, for errors.

    Raises:
        DatasetError: two files could be meant by a row, or no file is named by any row.
    """
    waiting = {}
    for row in rows:
        if row.url:
            yield row
        else:
            waiting[row.name] = row
    files_of: dict[str, str] = {}
    for file in files:
        if file.name.endswith("/") or is_system(file.name):
            continue
        name = _named(file.name, waiting)
        if name is None:
            continue
        if name in files_of:
            raise DatasetError(
                f"{name!r} may be {files_of[name]!r} or {file.name!r} of {place}; name the "
                "folder in the table as well"
            )
        files_of[name] = file.name
        yield replace(waiting[name], read=file.read, file=file.file)
    if waiting and not files_of:
        raise DatasetError(f"no file of {place} is named in the table, such as {min(waiting)!r}")
    for name in [name for name in waiting if name not in files_of]:
        yield replace(waiting[name], read=partial(_missing, place), file="")


def _named(file: str, rows: dict[str, Entry]) -> str | None:
    """Return what the rows call a file: its path, or the end of it."""
    while file not in rows:
        _, slash, file = file.partition("/")
        if not slash:
            return None
    return file


def _missing(place: str) -> bytes:
    raise ImageError(f"is not in {place}")
