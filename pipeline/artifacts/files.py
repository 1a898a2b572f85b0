"""Files that are written whole or not at all, and read with an error that says what to do."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ArtifactError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` only if the block succeeds.

    Raises:
        ArtifactError: the disk is full, the folder is read-only, …
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as error:
        # NumPy says how many bytes it could not write, and not why.
        reason = error.strerror or f"the disk is full, or a limit is reached ({error})"
        raise ArtifactError(f"cannot write {path}: {reason}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write sorted, indented JSON, so that equal content is an equal file."""
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file that can be memory-mapped."""
    with atomic(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Memory-map a `.npy` file. What is written into the array never reaches the file.

    Raises:
        ArtifactError: it is missing or torn.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    return array


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: it is missing or torn.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} is missing; the stage that makes it has not run: dvc repro")
    return ArtifactError(f"cannot read {path}: {error}")


def contents_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name; none where there is no such folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return {file.name: file for file in folder.iterdir() if file.is_file()}
    return {}


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dvc_md5(path: Path) -> str:
    """Return the md5 under which DVC stores a file, or a folder (`<md5>.dir`)."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    return md5_of_folder(path, path.rglob("*"))


def md5_of_folder(path: Path, paths: Iterable[Path]) -> str:
    """Return the md5 under which DVC would store a folder with only these of its files."""
    files = sorted(file for file in paths if file.is_file())
    with ThreadPoolExecutor() as pool:
        sums = pool.map(dvc_md5, files)
        names = (file.relative_to(path).as_posix() for file in files)
        rows = [{"md5": md5, "relpath": name} for md5, name in zip(sums, names, strict=True)]
    rows.sort(key=lambda row: row["relpath"])
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"
