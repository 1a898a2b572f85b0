"""One GPU for one training: which there are, and who has which."""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from pipeline.errors import TrainingError

# The locks of the GPUs that this process trains on; the system drops them when it ends.
_CLAIMED: list[TextIOWrapper] = []


def visible(count: int) -> list[str]:
    """Return how the driver calls the GPUs that TensorFlow numbers from 0."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return names[:count] if names else [str(number) for number in range(count)]


def claim(names: Sequence[str], folder: Path | None = None) -> int:
    """Take the first GPU that nobody on this machine trains on, until this process ends.

    Args:
        names: what the driver calls the GPUs.
        folder: of the lock files; else GPU_LOCK_FOLDER, which containers may share, else the
            system's folder for temporary files.

    Returns:
        Its position among the names.

    Raises:
        TrainingError: all are taken, which may pass.
    """
    place = folder or Path(os.environ.get("GPU_LOCK_FOLDER") or tempfile.gettempdir())
    for number, name in enumerate(names):
        path = place / f"training-on-gpu-{name}.lock"
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            _CLAIMED.append(lock)
            return number
    raise TrainingError(
        f"another training runs on each of this machine's GPUs ({', '.join(names)}); wait for it, "
        "or train with device: cpu",
        retryable=True,
    )
