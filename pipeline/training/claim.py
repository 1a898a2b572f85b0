"""One training per GPU: each training locks the GPU that it runs on."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import TrainingError

# The locks of the GPUs that this process trains on; the system releases them when it ends.
_CLAIMED: list[FileLock] = []


def visible(count: int) -> list[str]:
    """Return the driver's names of the first GPUs, which TensorFlow numbers from 0."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return names[:count] if names else [str(number) for number in range(count)]


def claim(names: Sequence[str], folder: Path | None = None) -> int:
    """Claim the first GPU of this machine that no training uses, until this process ends.

    Args:
        names: the driver's names of the GPUs.
        folder: where the lock files are; by default GPU_LOCK_FOLDER, which containers may share,
            or else the system's folder for temporary files.

    Returns:
        The position of the GPU among the names.

    Raises:
        TrainingError: all are in use; it is worth to try again later.
    """
    place = folder or Path(os.environ.get("GPU_LOCK_FOLDER") or tempfile.gettempdir())
    for number, name in enumerate(names):
        lock = FileLock(place / f"training-on-gpu-{name}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        _CLAIMED.append(lock)
        return number
    raise TrainingError(
        f"another training runs on each of this machine's GPUs ({', '.join(names)}); wait for it, "
        "or train with device: cpu",
        retryable=True,
    )
