"""Checkpoints as files: one per training that was interrupted or is at work, without pickle.

They lie in the cache of this machine: DVC deletes the outputs of a stage before it runs, and the
worktree of a flow run is removed when the run is killed.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pipeline.artifacts.files import atomic
from pipeline.artifacts.local_cache import cache
from pipeline.errors import ArtifactError
from pipeline.training.checkpoints.snapshot import Array, Snapshot

# Of all checkpoints; those not written for the longest time are removed first.
MOST_BYTES = 2 * 2**30
# The entries of a file that are no arrays of a training.
_VALUES, _DIGEST = "json", "sha256"


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read.

    Attributes:
        facts: what was written with the snapshot.
        saved: when.
    """

    snapshot: Snapshot
    facts: dict[str, Any]
    saved: datetime


def folder() -> Path:
    """Return the folder of the checkpoints."""
    return cache() / "checkpoints"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name of the training that all these facts decide the result of."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class Slot:
    """The place of one training's checkpoint, which one process at a time may use.

    Args:
        key: names the training.
        place: the folder; by default that of this machine.
    """

    def __init__(self, key: str, place: Path | None = None) -> None:
        self.path = (place or folder()) / f"{key}.npz"
        self._lock = FileLock(self.path.with_suffix(".lock"), blocking=False)

    def claim(self) -> bool:
        """Claim the place until `release`, or until this process ends.

        Returns:
            Whether it was free.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return False
        # A process that was killed while it wrote has left a part behind.
        for part in self.path.parent.glob(f".*-{self.path.name}"):
            part.unlink(missing_ok=True)
        return True

    def release(self) -> None:
        """Let others use the place."""
        if self._lock.is_locked and not self.path.exists():
            # While it is held: who waits for it sees that the file is gone, and makes a new one.
            self.path.with_suffix(".lock").unlink(missing_ok=True)
        self._lock.release()

    def read(self) -> Found | None:
        """Return the checkpoint; None where there is none.

        Raises:
            ArtifactError: the file is torn or damaged.
        """
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            text, digest = arrays.pop(_VALUES).tobytes(), arrays.pop(_DIGEST).tobytes()
            if digest != _digest(arrays, text):
                raise ValueError("its sha256 differs from what was written")
            content = json.loads(text)
            saved = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            return Found(Snapshot(arrays, content["values"]), content["facts"], saved)
        except FileNotFoundError:
            return None
        # A damaged archive fails in many ways.
        except Exception as error:
            raise ArtifactError(f"cannot read {self.path}: {error}") from error

    def write(self, snapshot: Snapshot, facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all; remove old ones of other trainings.

        Raises:
            ArtifactError: the disk is full, …
        """
        text = json.dumps({"values": snapshot.values, "facts": facts}).encode()
        entries = {
            _VALUES: np.frombuffer(text, np.uint8),
            _DIGEST: np.frombuffer(_digest(snapshot.arrays, text), np.uint8),
        }
        with atomic(self.path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **snapshot.arrays, **entries)
        self._make_room()

    def remove(self) -> None:
        """Remove the checkpoint, if there is one."""
        self.path.unlink(missing_ok=True)

    def _make_room(self) -> None:
        files = []
        for path in self.path.parent.iterdir():
            with suppress(FileNotFoundError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= MOST_BYTES:
                return
            # One that is in use stays.
            if path != self.path and path.suffix == ".npz":
                with suppress(Timeout), FileLock(path.with_suffix(".lock"), blocking=False):
                    path.unlink(missing_ok=True)
                    path.with_suffix(".lock").unlink(missing_ok=True)
                    total -= size


def _digest(arrays: Mapping[str, Array], text: bytes) -> bytes:
    digest = hashlib.sha256(text)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
