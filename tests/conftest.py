"""A fresh clone in which the real graph has run once, shared by the tests that look at it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


def clone(target: Path) -> Path:
    """Clone the repository as it stands in the working tree, and commit that."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(target)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
        else:
            (target / name).unlink(missing_ok=True)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "-A"], cwd=target, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=target, check=True)
    for key, value in {"user.name": "test", "user.email": "test@localhost"}.items():
        subprocess.run(["git", "config", key, value], cwd=target, check=True)
    return target


def runner(folder: Path, **extra: str) -> Run:
    """Return a function that runs a command line in a folder, with the folder's own code."""
    # Python keeps what it compiles, as it does by default: the tree must stay clean all the same.
    dropped = ("MLFLOW_", "DVC_", "PYTHONDONTWRITEBYTECODE")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(dropped)},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "200",
        **extra,
    }

    def run(*command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests remember of files out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        if "DATASET_CACHE" not in os.environ:
            patch.setenv("DATASET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh clone in which `dvc repro` has run on digits; leave it as it is."""
    temporary = tmp_path_factory.getbasetemp()
    # Side by side the tests run in processes, each with a folder of its own in a shared one.
    shared = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    made, done = shared / "reproduced", shared / "reproduced.done"
    # One process reproduces, which takes a minute; each gets a copy, as DVC takes locks in it.
    with FileLock(shared / "reproduced.lock"):
        if not done.exists():
            run = runner(clone(made))
            run("dvc", "repro")
            run("git", "add", "-A")
            run("git", "commit", "-qm", "what the pipeline made")
            done.touch()
    return Path(shutil.copytree(made, temporary / "fresh", symlinks=True))


@pytest.fixture
def workspace_copy(reproduced: Path, tmp_path: Path) -> Path:
    """Return a copy of the reproduced clone that a test may change."""
    return Path(shutil.copytree(reproduced, tmp_path / "copy", symlinks=True))
