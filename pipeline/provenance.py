"""What made a model: the commit, the libraries and the hardware."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psutil

LIBRARIES = ("tensorflow", "keras", "numpy", "pandas", "pillow", "mlflow")
# What the pipeline itself writes into the tree while it runs.
WRITTEN_BY_US = (":!dvc.lock", ":!data/accepted")


@dataclass(frozen=True)
class Commit:
    """Where the code stood; all None outside a git repository, `commit` before the first one.

    Attributes:
        dirty: whether tracked or new files differ from the commit.
    """

    commit: str | None
    branch: str | None
    dirty: bool | None


def git_commit() -> Commit:
    """Ask git about the working directory."""
    status = _git("status", "--porcelain", "--", ".", *WRITTEN_BY_US)
    return Commit(
        commit=_git("rev-parse", "--verify", "--quiet", "HEAD") or None,
        branch=_git("branch", "--show-current") or None,
        dirty=None if status is None else bool(status),
    )


def _git(*arguments: str) -> str | None:
    """Return what git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def requirements() -> list[str]:
    """Return the exact versions of the libraries that a model needs to run."""
    return [f"{name}=={version(name)}" for name in LIBRARIES]


def environment() -> dict[str, Any]:
    """Describe the software and the hardware of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
