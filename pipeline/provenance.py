"""What made a model: the commit, the libraries and the hardware."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import psutil

LIBRARIES = ("tensorflow", "keras", "numpy", "pandas", "pillow", "mlflow")
# What the pipeline itself writes into the tree while it runs, and the choices that are recorded
# with the run itself.
NOT_CODE = (":!dvc.lock", ":!data/accepted", ":!params.yaml")
# Set by whoever starts the pipeline from elsewhere, say a scheduler.
FLOW_RUN_ID, FLOW_RUN_URL = "FLOW_RUN_ID", "FLOW_RUN_URL"


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
    status = _git("status", "--porcelain", "--", ".", *NOT_CODE)
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


def flow_run() -> dict[str, str]:
    """Return which flow run this process works for, where one does."""
    names = {"flow_run_id": FLOW_RUN_ID, "flow_run_url": FLOW_RUN_URL}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


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
