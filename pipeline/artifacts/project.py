"""The project's folder, searched upwards, and the MLflow database that its copies share."""

import os
from pathlib import Path
from typing import Literal

from configobj import ConfigObj, ConfigObjError

from pipeline.errors import ParamsError

PARAMS_FILE = Path("params.yaml")
# The stages of dvc.yaml in their order; the model stages run once for each model.
DATA_STAGES = ("resolve", "ingest", "validate", "preprocess")
MODEL_STAGES = ("train", "evaluate")
STAGES = (*DATA_STAGES, *MODEL_STAGES, "register")
# Where a run may end.
Until = Literal["validate", "preprocess", "train", "evaluate", "register"]
STORE = "mlflow.db"
# Set by DVC within an experiment: the project that started it.
DVC_ROOT = "DVC_ROOT"


def find() -> Path | None:
    """Return the closest folder with params.yaml, from the working directory upwards, or None."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / PARAMS_FILE).is_file()), None)


def root(or_here: bool = False) -> Path:
    """Return the project's folder as seen from the working directory, such as `..`.

    Args:
        or_here: whether to return the working directory where it is in no project.

    Raises:
        ParamsError: the working directory is in no project.
    """
    found = find()
    if found is None and not or_here:
        raise ParamsError(
            f"{Path.cwd()} is in no project: neither it nor a folder above it has {PARAMS_FILE}; "
            "cd into one"
        )
    return Path(os.path.relpath(found)) if found else Path()


def store_file(project: Path) -> Path:
    """Return the MLflow database of a project: a copy of it uses that of the original.

    Args:
        project: its folder, or that of a copy; absolute.

    Raises:
        ParamsError: the settings of DVC cannot be read.
    """
    # A copy that already has a database keeps using it.
    own = project / STORE
    return own if own.exists() else original(project) / STORE


def original(copy: Path) -> Path:
    """Return the project whose DVC cache a folder uses; the folder itself if it is no copy.

    What DVC runs in a temporary folder and what runs in a git worktree has the results of the
    project from its cache, so it needs the runs that made them.
    """
    owner = cache_folder(copy).parent.parent
    if (owner / PARAMS_FILE).is_file():
        return owner
    # A cache outside of all projects does not say whose it is.
    return Path(os.environ.get(DVC_ROOT) or copy)


def cache_folder(project: Path) -> Path:
    """Return the folder of a project's DVC cache, which a setting may have moved.

    Raises:
        ParamsError: the settings of DVC cannot be read.
    """
    folder = project / ".dvc"
    for name in ("config.local", "config"):
        try:
            settings = ConfigObj(str(folder / name))
        except (ConfigObjError, UnicodeDecodeError) as error:
            raise ParamsError(f"{folder / name} cannot be read: {error}") from None
        if place := settings.get("cache", {}).get("dir"):
            return Path(os.path.normpath(folder / Path(place).expanduser()))
    return folder / "cache"
