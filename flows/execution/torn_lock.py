"""Repair a dvc.lock that is cut off, as DVC was killed while it wrote it; every command fails then.

`make run` and the flows call this first. Little is lost: DVC's run cache knows what each stage has
made, and the last commit's dvc.lock knows the rest, such as what was pulled.
"""

import subprocess
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import parse_yaml
from dvc.utils.strictyaml import validate

from pipeline.artifacts.files import atomic

LOCK, TORN = "dvc.lock", "dvc.lock.torn"


def set_aside(root: Path) -> str | None:
    """Rename a torn dvc.lock to dvc.lock.torn, and put that of the last commit in its place.

    Args:
        root: the top folder of the project.

    Returns:
        What was done, as a message; None where the file is whole, or DVC is running.
    """
    lock = root / LOCK
    if not lock.exists() or _whole(lock.read_bytes()):
        return None
    try:
        # DVC writes under this lock: a file that is torn now is not just being written.
        with Repo(str(root)).lock:
            content = lock.read_bytes()
            # A merge conflict is not an accident.
            if _whole(content) or b"\n<<<<<<< " in content:
                return None
            lock.replace(root / TORN)
            place = "that of the last commit takes its place, and " if _restore(root) else ""
    except LockError:
        return None
    return (
        f"{LOCK} was cut off while DVC wrote it, and is {TORN} now; {place}DVC's cache has the rest"
    )


def _whole(content: bytes) -> bool:
    """Return whether DVC can read it, and it does not end in the middle of a line."""
    if not content.endswith(b"\n"):
        return False  # DVC would read `hash: md` and fail later
    try:
        validate(parse_yaml(content.decode(), LOCK), COMPILED_LOCKFILE_SCHEMA)
    except (UnicodeDecodeError, DvcException):
        return False
    return True


def _restore(root: Path) -> bool:
    """Restore the committed file, if there is one that is whole."""
    command = ["git", "show", f"HEAD:./{LOCK}"]
    found = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if found.returncode or not _whole(found.stdout):
        return False
    with atomic(root / LOCK) as part:
        part.write_bytes(found.stdout)
    return True


if __name__ == "__main__":
    if said := set_aside(Path()):
        print(f"warning: {said}", file=sys.stderr)
