"""Images that a table names by URL: fetched in parallel, kept by URL, asked for anew if changed."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from pipeline.artifacts.local_cache import cache
from pipeline.artifacts.record import Record
from pipeline.errors import ArtifactError, DownloadError, ImageError
from pipeline.parallel import spread
from pipeline.sources.addresses import is_object, scheme
from pipeline.sources.download import answer, check, receive
from pipeline.sources.objects import AT_ONCE, fetch_one
from pipeline.sources.patience import Patience
from pipeline.sources.progress import bar
from pipeline.sources.stores import ObjectStore

# Failures in a row after which a server is not asked for the rest.
GIVEN_UP = 20


class Kept(Record):
    """What is known of a URL, beside its file in the cache.

    Attributes:
        state: the ETag or time of change of the file; empty where the server says neither.
        error: why there is no file.
    """

    state: str = ""
    error: str = ""


def fetch_images(
    urls: Iterable[str],
    most: int,
    patience: Patience | None = None,
    progress: bool = True,
) -> int:
    """Bring images to the cache; one that is not to be had is no error until it is read.

    Args:
        urls: of images, each once.
        most: bytes that a file may have.
        patience: how long to wait.
        progress: whether to show a bar.

    Returns:
        How many images there are now.

    Raises:
        DownloadError: none is to be had.
        ArtifactError: the cache cannot be written.
    """
    fetcher = Fetcher(most, patience or Patience())
    there = 0
    errors: list[DownloadError] = []
    with (
        bar("download images", None, progress) as advance,
        closing(spread(fetcher.fetch, urls, threads=AT_ONCE)) as done,
    ):
        for error in done:
            advance(1)
            there += error is None
            if error is not None and not there and not errors:
                errors.append(error)
    if errors and not there:
        raise DownloadError(f"none of the images is to be had: {errors[0]}", errors[0].retryable)
    return there


def read_fetched(url: str, read: Callable[[str], bytes]) -> bytes:
    """Read an image that was fetched before.

    Args:
        url: of the image.
        read: reads a file.

    Raises:
        ImageError: it was not to be had; says why.
    """
    file = kept_at(url)
    if file.exists():
        return read(str(file))
    raise ImageError(_known(file).error or "was not fetched")


class Fetcher:
    """What fetches one image after the other, in any number of threads.

    Attributes:
        most: bytes that a file may have.
        patience: how long to wait.
        failures: by server, how often it did not answer since it last did.
    """

    def __init__(self, most: int, patience: Patience) -> None:
        self.most, self.patience = most, patience
        self.failures: Counter[str] = Counter()
        self.session = requests.Session()
        for start in ("http://", "https://"):
            self.session.mount(start, HTTPAdapter(pool_maxsize=AT_ONCE))
        self.stores: dict[str, ObjectStore] = {}

    def fetch(self, url: str) -> DownloadError | None:
        """Fetch an image unless it is here and unchanged; return why that was not possible."""
        file, server = kept_at(url), url.split("/")[2]
        known = _known(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            now = self._fetch(url, server, file, known.state if file.exists() else "")
            self.failures[server] = 0
        except DownloadError as error:
            self.failures[server] += error.retryable
            if error.retryable and file.exists():
                return None  # as it was the last time
            file.unlink(missing_ok=True)
            Kept(error=str(error)).save(_record(file))
            return error
        except OSError as error:
            raise ArtifactError(f"cannot write {file}: {error.strerror or error}") from error
        if now != known:
            now.save(_record(file))
        return None

    def _fetch(self, url: str, server: str, file: Path, state: str) -> Kept:
        if self.failures[server] >= GIVEN_UP:
            reason = f"{server} was not asked: before, it did not answer {GIVEN_UP} times in a row"
            raise DownloadError(reason, retryable=True)
        one = self._from_store if is_object(url) else self._from_web
        return Kept(state=self.patience.retrying()(one, url, file, state))

    def _from_web(self, url: str, file: Path, state: str) -> str:
        """Write the file unless it is as it was, and return its state."""
        asked = {"If-None-Match" if '"' in state else "If-Modified-Since": state} if state else {}
        part = file.with_name(f".{os.getpid()}-{file.name}.part")
        try:
            with answer(self.session, url, asked, self.patience) as response:
                if response.status_code == 304 and state:
                    return state
                check(response, part, 0)
                receive(response, part, 0, self.patience, False, self.most)
                found = response.headers
                part.replace(file)
                return found.get("ETag") or found.get("Last-Modified") or ""
        finally:
            part.unlink(missing_ok=True)

    def _from_store(self, url: str, file: Path, state: str) -> str:
        kind = scheme(url)
        store = self.stores.get(kind) or self.stores.setdefault(
            kind, ObjectStore(url, self.patience)
        )
        found = store.find(url)
        if found[0].name:
            raise DownloadError("is a folder")
        if found[0].size > self.most:
            raise DownloadError(f"{found[0].size:,} bytes are more than the {self.most:,} allowed")
        if not state or found[0].state != state:
            fetch_one(store, found[0], file, self.patience, lambda _: None)
        return found[0].state


def kept_at(url: str) -> Path:
    """Return where the cache has an image; no part of a URL, which may be secret, is a name."""
    name = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()
    return cache() / ".images" / name[:2] / name


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _known(file: Path) -> Kept:
    try:
        return Kept.load(_record(file))
    except ArtifactError:
        return Kept()
