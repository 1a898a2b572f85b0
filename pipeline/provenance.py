"""What made a model: the commit, the libraries and the hardware."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil

from pipeline import project
from pipeline.files import sha256
from pipeline.params import PARAMS_FILE
from pipeline.passport import Code, Environment, Provenance
from pipeline.recipes import Recipe

LIBRARIES = ("tensorflow", "keras", "numpy", "pandas", "pillow", "mlflow")
LOCKFILES = Path("requirements")
# A longer one is of data that git should not see.
LONGEST_DIFF = 5_000_000
# What the pipeline itself writes into the tree while it runs, the choices that are recorded with
# the run itself, and images, which have md5s of their own.
NOT_CODE = (":!dvc.lock", ":!data/accepted", ":!data/own", ":!params.yaml")
# Set by whoever starts the pipeline from elsewhere, say a scheduler.
FLOW_RUN_ID, FLOW_RUN_URL = "FLOW_RUN_ID", "FLOW_RUN_URL"


def describe(
    recipe: Recipe, *, deterministic: bool, device: str, hardware: Mapping[str, Any]
) -> Provenance:
    """Describe what is about to train, in the working directory.

    Args:
        recipe: with its seed filled in.
        deterministic: as it trains.
        device: as it is called.
        hardware: what is known of the device.
    """
    return Provenance(
        code=git_code(),
        environment=environment(hardware),
        params_yaml=PARAMS_FILE.read_text() if PARAMS_FILE.exists() else "",
        recipe=recipe,
        seed=recipe.seed or 0,
        deterministic=deterministic,
        device=device,
        flow_run=flow_run(),
    )


def git_code() -> Code:
    """Ask git about the working directory."""
    status = _git("status", "--porcelain", "--", ".", *NOT_CODE)
    return Code(
        commit=head(),
        branch=_branch(),
        dirty=None if status is None else bool(status.strip()),
        diff=_diff() if status else "",
        lockfiles={path.as_posix(): sha256(path) for path in sorted(LOCKFILES.glob("*.txt"))},
    )


def head() -> str | None:
    """Return the commit of the working directory; None where there is none."""
    return (_git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None


def _branch() -> str | None:
    """Return the branch; a run in a copy has none, and git names its commit after one."""
    branch, commit = (_git("branch", "--show-current") or "").strip(), head()
    if branch or commit is None:
        return branch or None
    # The branches are where the copy was made.
    place = "-C", str(project.original(project.find() or Path.cwd()))
    named = "--no-undefined", "--name-only", "--refs=refs/heads/*", "--refs=refs/remotes/*"
    return (_git(*place, "name-rev", *named, commit) or "").strip() or None


def _diff() -> str:
    """Return what differs from the commit, new files too; nothing where that is too much."""
    objects = (_git("rev-parse", "--path-format=absolute", "--git-path", "objects") or "").strip()
    with tempfile.TemporaryDirectory() as folder:
        # An index and a store of its own, so that the repository is left as it is.
        aside = {
            "GIT_INDEX_FILE": str(Path(folder) / "index"),
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _git("read-tree", "HEAD", **aside)
        _git("add", "--all", "--", ".", *NOT_CODE, **aside)
        diff = _git("diff", "--cached", "--binary", "HEAD", **aside) or ""
    return diff if len(diff) <= LONGEST_DIFF else ""


def _git(*arguments: str, **variables: str) -> str | None:
    """Return what git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=60,
            env={**os.environ, **variables},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def flow_run() -> dict[str, str]:
    """Return which flow run this process works for, where one does."""
    names = {"flow_run_id": FLOW_RUN_ID, "flow_run_url": FLOW_RUN_URL}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def requirements() -> list[str]:
    """Return the exact versions of the libraries that a model needs to run."""
    return [f"{name}=={version(name)}" for name in LIBRARIES]


def environment(hardware: Mapping[str, Any] | None = None) -> Environment:
    """Describe the software and the hardware of this process.

    Args:
        hardware: what else is known; None is left out.
    """
    known = {
        "cpu": cpu_name(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        **(hardware or {}),
    }
    packages = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        packages=dict(sorted(packages.items())),
        hardware={key: str(value) for key, value in known.items() if value is not None},
    )


def cpu_name() -> str:
    """Return the CPU's model name where Linux tells it."""
    return next(iter(_of_cpu("model name")), "CPU")


def cpu_flags() -> frozenset[str]:
    """Return the names of the CPU's instruction sets where Linux tells them."""
    return frozenset(" ".join((*_of_cpu("flags"), *_of_cpu("Features"))).split())


def _of_cpu(field: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(field)]
