"""One file from one URL: resumed, retried with back-off, verified, and put in place whole."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from pipeline.errors import DatasetError, DownloadError
from pipeline.sources.patience import Patience, TransientError, locked, reason
from pipeline.sources.progress import bar

CHUNK = 1 << 18
RETRIED = frozenset({408, 425, 429})
WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|\?xml[^>]*>\s*<!doctype\s+html)", re.I)


def download(
    url: str,
    target: Path,
    verify: Callable[[Path], str],
    *,
    pinned: bool,
    patience: Patience | None = None,
    progress: bool = True,
) -> str:
    """Download a file unless a verified one is there already.

    Two processes may ask for one file at once: the second waits for the first.

    Args:
        url: its address.
        target: where it goes; `<target>.part` keeps what came so far.
        verify: returns the checksum of the file at a path, and raises a DatasetError unless it
            is what was asked for.
        pinned: whether `verify` knows the checksum. Only then is a file that is there already
            trusted, and what an earlier process left in `.part` continued.
        patience: how long to wait.
        progress: whether to show a bar.

    Returns:
        What `verify` does.

    Raises:
        DownloadError: the server does not deliver; says why.
        ArtifactError: the cache cannot be written.
    """
    patience = patience or Patience()
    part = target.with_name(f"{target.name}.part")
    with locked(target):
        if pinned and (checksum := kept(target, verify)):
            return checksum
        if not pinned:
            part.unlink(missing_ok=True)
        checksum = patience.retrying()(_attempt, url, part, verify, patience, progress)
        part.replace(target)
        return checksum


def kept(target: Path, verify: Callable[[Path], str]) -> str | None:
    """Return the checksum of the file in the cache; one that is damaged goes."""
    if not target.exists():
        return None
    try:
        return verify(target)
    except DatasetError:
        target.unlink()
        return None


def _attempt(
    url: str, part: Path, verify: Callable[[Path], str], patience: Patience, progress: bool
) -> str:
    resumed = _transfer(url, part, patience, progress)
    try:
        return verify(part)
    except DatasetError as error:
        part.unlink()
        # What was there before may not belong to what came now: once more from the start.
        raise (TransientError if resumed else DownloadError)(str(error)) from error


def _transfer(url: str, part: Path, patience: Patience, progress: bool) -> bool:
    """Bring the rest of the file into `part`; return whether there was a beginning."""
    offset = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with answer(requests, url, headers, patience) as response:
        resumed = check(response, part, offset)
        if response.status_code != 416:
            receive(response, part, offset if resumed else 0, patience, progress)
            with part.open("rb") as written:
                os.fsync(written.fileno())
        return resumed


@contextmanager
def answer(
    session: Any, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """Ask for a file, and yield the answer whose body has not been read yet.

    Args:
        session: a session of requests, or requests itself.
        url: its address.
        headers: of the question.
        patience: how long to wait.

    Raises:
        DownloadError: the server does not deliver; says why.
    """
    headers = {"Accept-Encoding": "identity"} | headers
    try:
        with session.get(
            url, headers=headers, stream=True, timeout=(patience.connect, patience.stall)
        ) as response:
            yield response
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidURL) as error:
        raise DownloadError(f"not a URL: {error}") from error
    except requests.Timeout as error:
        raise TransientError(f"no answer within {patience.stall:g} s") from error
    except (requests.RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        raise TransientError(reason(error)) from error


def check(response: requests.Response, part: Path, offset: int) -> bool:
    """Judge the head of the answer; return whether it continues what is there.

    Raises:
        DownloadError: it is not the file.
    """
    status, place = response.status_code, response.headers.get("Content-Range", "")
    if status == 416 and offset and place == f"bytes */{offset}":
        return True  # nothing is missing
    if status == 416 or (status == 206 and not place.startswith(f"bytes {offset}-")):
        part.unlink(missing_ok=True)
        raise TransientError(f"answers {status} with Content-Range {place!r}")
    if status >= 500 or status in RETRIED:
        raise TransientError(f"answers {status} {response.reason}")
    if status not in (200, 206):
        raise DownloadError(f"answers {status} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError("answers with a web page instead of the file")
    return status == 206 and offset > 0


def receive(
    response: requests.Response,
    part: Path,
    offset: int,
    patience: Patience,
    progress: bool,
    most: int | None = None,
) -> None:
    """Write the body of an answer.

    Args:
        response: the answer.
        part: the file.
        offset: bytes of it that are there already.
        patience: how long to wait.
        progress: whether to show a bar.
        most: bytes that it may have.

    Raises:
        DownloadError: it breaks off, stalls, is too large, or is a web page.
    """
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdigit() else None
    size, since, then = offset, time.monotonic(), offset
    title = f"download {part.name.removesuffix('.part')}"
    with (
        part.open("ab" if offset else "wb") as file,
        bar(title, total, progress, done=offset, in_bytes=True) as advance,
    ):
        # As the server sent it, and as soon as it comes, so that a trickle is noticed.
        while data := response.raw.read1(CHUNK, decode_content=False):
            if not size and WEB_PAGE.match(data):
                raise DownloadError("answers with a web page instead of the file")
            file.write(data)
            size += len(data)
            if most is not None and size > most:
                raise DownloadError(f"more than the {most:,} bytes allowed")
            advance(len(data))
            if (now := time.monotonic()) - since > patience.stall:
                if size - then < patience.slowest:
                    raise TransientError(f"stalls: {size - then} bytes in {now - since:.0f} s")
                since, then = now, size
    if total is not None and size < total:
        raise TransientError(f"ends after {size:,} of {total:,} bytes")
