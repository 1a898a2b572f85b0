"""How long a server is waited for, what is tried again, and one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipeline.errors import ArtifactError, DownloadError


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        connect: seconds until a connection must stand.
        stall: seconds within which `slowest` bytes must arrive.
        slowest: see stall.
        attempts: how often a source is tried where trying again can help.
        backoff: seconds before the second attempt, doubled before each further one.
    """

    connect: float = 10
    stall: float = 30
    slowest: int = 1024
    attempts: int = 4
    backoff: float = 1

    def retrying(self) -> Retrying:
        """Return what calls a function again while it raises a `TransientError`."""
        return Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.backoff, max=60),
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        )


class TransientError(DownloadError):
    """Trying again can help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which the system releases should the process die.

    Raises:
        ArtifactError: the folder that it is in cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            yield
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from error


def reason(error: BaseException) -> str:
    """Return the innermost cause, which says most, on one line."""
    cause = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return f"{type(error).__name__}: {' '.join(str(cause).split())}"
