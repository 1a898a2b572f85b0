"""One object store, opened with fsspec: what lies at an address, and its bytes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.errors import DownloadError
from pipeline.sources.addresses import STORES, scheme
from pipeline.sources.patience import Patience, TransientError, reason

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# What identifies the content of an object, and else when it was written.
TAGS = ("ETag", "etag", "blob_id")
TIMES = ("LastModified", "last_modified", "mtime", "updated")
# What the stores' libraries call a login that is missing or wrong.
REFUSED = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
        *("DefaultCredentialsError", "RefreshError", "ClientAuthenticationError"),
        *("CredentialUnavailableError", "GatedRepoError"),
    }
)


@dataclass(frozen=True)
class Object:
    """A file in a store.

    Attributes:
        path: where it is in its store.
        name: its path below the address that was asked for; empty where it is that itself.
        size: in bytes.
        state: another one says that its content is another.
    """

    path: str
    name: str
    size: int
    state: str


class ObjectStore:
    """The store that an address is in.

    Raises:
        DownloadError: the library that reads it is not installed.
    """

    def __init__(self, address: str, patience: Patience) -> None:
        import fsspec

        self.store = STORES[scheme(address)]
        options: dict[str, Any] = {}
        if scheme(address) == "s3":
            waits = {"connect_timeout": patience.connect, "read_timeout": patience.stall}
            # Tried again is here, as with other servers.
            options["config_kwargs"] = {**waits, "retries": {"max_attempts": 0}}
        # What it says of each attempt with many lines, the error says in one.
        logging.getLogger(self.store.package).setLevel(logging.CRITICAL)
        try:
            self.files: AbstractFileSystem = fsspec.filesystem(
                scheme(address),
                skip_instance_cache=True,
                use_listings_cache=False,
                **options,
            )
        except ImportError:
            raise DownloadError(
                f"{scheme(address)}:// needs the package {self.store.package}: "
                f"pip install -e '.[{self.store.extra}]'"
            ) from None
        except Exception as error:  # a login that is incomplete, say
            raise DownloadError(f"{reason(error)}; {self.store.login}") from error
        self.files.retries = 1  # s3fs' own

    def find(self, address: str) -> list[Object]:
        """List the file at an address, or all files below it.

        Raises:
            DownloadError: nothing lies there, or a name would lead outside of a folder.
        """
        with self._explained():
            path = self.files._strip_protocol(address).rstrip("/")
            self.files.invalidate_cache()
            info = self.files.info(path)
            if info["type"] == "file":
                return [_object(path, "", info)]
            found = self.files.find(path, detail=True)
        objects = [
            _object(name, name.removeprefix(f"{path}/"), info)
            for name, info in sorted(found.items())
            # Some tools write an empty object for a folder.
            if info["type"] == "file" and not name.endswith("/")
        ]
        for each in objects:
            if not _is_inside(each.name):
                raise DownloadError(f"the name {each.name!r} would lie outside of the folder")
        if not objects:
            raise DownloadError("there are no files")
        return objects

    def read(self, found: Object, start: int, end: int) -> bytes:
        """Read a part of an object.

        Raises:
            DownloadError: the server does not deliver.
        """
        if start >= end:
            return b""
        with self._explained():
            data: bytes = self.files.cat_file(found.path, start=start, end=end)
        if len(data) != end - start:
            raise TransientError(f"ends after {start + len(data):,} of {found.size:,} bytes")
        return data

    def check(self, found: Object) -> None:
        """Compare an object that was read in parts with what is there now.

        Raises:
            DownloadError: it changed meanwhile.
        """
        with self._explained():
            self.files.invalidate_cache()
            now = _object(found.path, found.name, self.files.info(found.path))
        if now != found:
            raise DownloadError(f"{found.path} changed while it was fetched", retryable=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DownloadError:
            raise
        except FileNotFoundError as error:
            raise DownloadError("no such bucket, file or folder") from error
        except PermissionError as error:
            raise DownloadError(f"access is refused: {error}; {self.store.login}") from error
        except Exception as error:  # each library has its own
            if type(error).__name__ in REFUSED:
                raise DownloadError(f"{reason(error)}; {self.store.login}") from error
            raise TransientError(reason(error)) from error


def _object(path: str, name: str, info: dict[str, Any]) -> Object:
    known = [info[key] for key in (*TAGS, *TIMES) if info.get(key)]
    return Object(path, name, int(info["size"]), str(known[0]) if known else "")


def _is_inside(name: str) -> bool:
    """Return whether a name is that of a file in a folder: a store takes any text."""
    return str(PurePosixPath(name)) == name and ".." not in name.split("/") and name[:1] != "/"
