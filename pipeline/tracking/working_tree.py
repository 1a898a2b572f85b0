"""The state of the working tree in git: the commit, and what differs from it."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.artifacts import project
from pipeline.artifacts.files import dvc_md5, sha256
from pipeline.tracking.provenance import Code

LOCKFILES = Path("requirements")
DVC_YAML = Path("dvc.yaml")
# The code: what the stages import, and what starts them. Files that dvc.yaml names are code too.
# Only code goes into the diff, and only code makes a tree dirty.
CODE = ("pipeline", "flows", DVC_YAML.as_posix(), "pyproject.toml", LOCKFILES.as_posix())
# Recorded in other ways: what the pipeline itself writes into the tree, params.yaml, and images,
# whose md5 is in the metadata of the data.
NOT_CODE = ("dvc.lock", "data/accepted", "data/own", "data/watched", "params.yaml")
# A longer diff is of data, which should not be in git.
LONGEST_DIFF = 5_000_000
# The most other files that are listed, and the largest in bytes whose md5 is computed.
MOST_OTHERS, LARGEST_OTHER = 1000, 100_000_000


def git_code() -> Code:
    """Return what git knows about the code in the working directory."""
    changed = _changed()
    code, others = _split(changed or ())
    return Code(
        commit=head(),
        branch=_branch(),
        dirty=None if changed is None else bool(code),
        diff=_diff(code) if code else "",
        others={name: _md5(Path(name)) for name in others[:MOST_OTHERS]},
        lockfiles={path.as_posix(): sha256(path) for path in sorted(LOCKFILES.glob("*.txt"))},
    )


def head() -> str | None:
    """Return the commit of the working directory; None where there is none."""
    return (_git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None


def _branch() -> str | None:
    """Return the branch; of a copy without one, the name that git gives to its commit."""
    branch, commit = (_git("branch", "--show-current") or "").strip(), head()
    if branch or commit is None:
        return branch or None
    # The branches are in the original project.
    place = "-C", str(project.original(project.find() or Path.cwd()))
    named = "--no-undefined", "--name-only", "--refs=refs/heads/*", "--refs=refs/remotes/*"
    return (_git(*place, "name-rev", *named, commit) or "").strip() or None


def _changed() -> list[str] | None:
    """Return the files that differ from the commit, new ones too; None where git cannot say."""
    options = ("--porcelain", "-z", "--untracked-files=all", "--no-renames")
    status = _git("status", *options, "--", ".")
    if status is None:
        return None
    # Git names files from the top of the repository.
    here = (_git("rev-parse", "--show-prefix") or "").strip()
    return [row[3:].removeprefix(here) for row in status.split("\0") if row]


def _split(changed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return which of the files are code, and which are neither code nor recorded elsewhere."""
    code: list[str] = []
    others: list[str] = []
    paths = (*CODE, *_named_by_the_graph())
    for name in sorted(changed):
        if not _below(name, NOT_CODE):
            (code if _below(name, paths) else others).append(name)
    return code, others


def _below(name: str, paths: Iterable[str]) -> bool:
    return any(name == path or name.startswith(f"{path}/") for path in paths)


def _named_by_the_graph() -> tuple[str, ...]:
    """Return the files and folders that stages of dvc.yaml depend on."""
    try:
        graph = YAML(typ="safe").load(DVC_YAML)
        stages = graph["stages"].values()
        return tuple(name for stage in stages for name in _read_by(stage.get("do", stage)))
    except (OSError, YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        return ()  # no dvc.yaml, or one that DVC would not run


def _read_by(stage: Mapping[str, Any]) -> Iterator[str]:
    deps: list[Any] = stage.get("deps", [])
    # A parameter without a file is one of params.yaml.
    files = [entry for entry in stage.get("params", []) if isinstance(entry, dict)]
    for entry in (*deps, *files):
        for name in entry if isinstance(entry, dict) else [entry]:
            yield (PurePosixPath(stage.get("wdir", "")) / name).as_posix()


def _md5(path: Path) -> str:
    """Return the md5 of a file; empty where it is gone, unreadable, too large, or not a file."""
    try:
        small = path.is_file() and path.stat().st_size <= LARGEST_OTHER
        return dvc_md5(path) if small else ""
    except OSError:
        return ""


def _diff(names: Iterable[str]) -> str:
    """Return the diff of files to the commit, new ones too; empty where it is too long."""
    objects = (_git("rev-parse", "--path-format=absolute", "--git-path", "objects") or "").strip()
    with tempfile.TemporaryDirectory() as folder:
        # With an index and an object store of its own, the repository stays as it is.
        aside = {
            "GIT_INDEX_FILE": str(Path(folder) / "index"),
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
            "GIT_LITERAL_PATHSPECS": "1",
        }
        listed = Path(folder) / "names"
        listed.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
        _git("read-tree", "HEAD", **aside)
        from_file = (f"--pathspec-from-file={listed}", "--pathspec-file-nul")
        if _git("add", "--all", *from_file, **aside) is None:
            return ""
        diff = _git("diff", "--cached", "--binary", "HEAD", **aside) or ""
    return diff if len(diff) <= LONGEST_DIFF else ""


def _git(*arguments: str, **variables: str) -> str | None:
    """Return what git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
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
