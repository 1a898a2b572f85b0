"""What this machine remembers of files, so that they need not be read again; safe to delete."""

import os
import sqlite3
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from platformdirs import user_cache_path

CACHE = "DATASET_CACHE"
# A file that changes again within the resolution of the clock would look unchanged.
UNSETTLED_SECONDS = 2.0
WRITTEN_AT_ONCE = 10_000
SELECT = "SELECT state, sha256 FROM files WHERE inode = ?"


def cache() -> Path:
    """Return the folder of downloads and of this: DATASET_CACHE, or the user's cache."""
    folder = os.environ.get(CACHE)
    return Path(folder) if folder else user_cache_path("image-classification-pipeline")


class Digests:
    """The sha256 of files that have not changed since they were read, told by their inode.

    A file counts as changed where its size, or the time of its last change of content, name or
    permissions differs, as git tells it. Without the database, or with a damaged one, all files are
    read.

    Args:
        path: the database; in the cache unless given.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._found: dict[str, str] = {}
        self._unknown: dict[str, tuple[int, bytes]] = {}
        self._new: list[tuple[int, bytes, bytes]] = []
        self._path = path or cache() / "digests.sqlite"

    @cached_property
    def _database(self) -> sqlite3.Connection | None:
        """The database, made when a file is looked up."""
        return _opened(self._path)

    @cached_property
    def _cursor(self) -> sqlite3.Cursor | None:
        return self._database.cursor() if self._database else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write()
        self.__dict__.pop("_cursor", None)
        if database := self.__dict__.pop("_database", None):
            database.close()

    def knows(self, file: str) -> bool:
        """Return whether a file need not be read; `look_up` then costs nothing more."""
        if file not in self._found:
            self._found[file] = self._find(file)
        return bool(self._found[file])

    def look_up(self, file: str, only_content: bool = False) -> str:
        """Return the sha256 of a file, or an empty text where it must be read.

        Args:
            file: its path.
            only_content: whether a new name, link or permission leaves it as it was: for files that
                only programs write, whose times nobody sets back.
        """
        if file in self._found:
            return self._found.pop(file)
        return self._find(file, only_content)

    def _find(self, file: str, only_content: bool = False) -> str:
        try:
            found = os.stat(file)  # noqa: PTH116 (a Path costs as much again)
        except OSError:
            return ""
        inode = (found.st_ino ^ (found.st_dev << 40)) & 0x7FFFFFFFFFFFFFFF
        changed = 0 if only_content else found.st_ctime_ns
        state = b"%d %d %d %d" % (found.st_dev, found.st_size, found.st_mtime_ns, changed)
        if self._cursor:
            with suppress(sqlite3.Error):
                row = self._cursor.execute(SELECT, (inode,)).fetchone()
                if row and row[0] == state:
                    return bytes(row[1]).hex()
        settled = time.time() - max(found.st_mtime, found.st_ctime) > UNSETTLED_SECONDS
        if only_content or settled:
            self._unknown[file] = (inode, state)
        return ""

    def remember(self, file: str, sha256: str) -> None:
        """Remember the sha256 of a file that was looked up before it was read."""
        if known := self._unknown.pop(file, None):
            self._new.append((*known, bytes.fromhex(sha256)))
            if len(self._new) >= WRITTEN_AT_ONCE:
                self._write()

    def _write(self) -> None:
        if self._new and self._database:
            with suppress(sqlite3.Error), self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?)", self._new
                )
        self._new.clear()


def _opened(path: Path) -> sqlite3.Connection | None:
    """Open the database, or make it; a damaged one is made anew."""
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=10)
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                "CREATE TABLE IF NOT EXISTS files"
                " (inode INTEGER PRIMARY KEY, state BLOB, sha256 BLOB)"
            )
            return database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                return None
            with suppress(OSError):
                path.unlink()
        except OSError:
            return None
    return None
