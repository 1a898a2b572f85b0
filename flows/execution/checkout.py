"""A git worktree per run: it has its own files and locks, and shares the DVC cache."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from configobj import ConfigObj
from filelock import FileLock, Timeout

from pipeline.errors import PipelineError

# Where a worker finds the project: a path or URL to clone, and the folder for the clone.
REPOSITORY, HOME = "PIPELINE_REPOSITORY", "PIPELINE_HOME"
RUNS = ".runs"
OWN_IMAGES, WATCHED = Path("data/own"), Path("data/watched")


class CheckoutError(PipelineError):
    """There is no repository, it lacks the revision, or git fails."""


class UnknownRevision(CheckoutError):
    """The repository has no such revision."""


@dataclass(frozen=True)
class Checkout:
    """The files that a run works on.

    Attributes:
        root: the folder.
        repository: the clone whose DVC cache it shares, and whose MLflow store is the default.
        commit: that is checked out.
        in_place: whether `root` is a working tree that people edit, not a worktree of the run.
        left: names of killed runs whose worktrees were removed.
    """

    root: Path
    repository: Path
    commit: str
    in_place: bool = False
    left: tuple[str, ...] = ()


def here() -> Checkout:
    """Return the working tree that the current directory belongs to.

    Raises:
        CheckoutError: it is not in a repository.
    """
    root = _top(Path.cwd())
    return Checkout(root, root, _git(root, "rev-parse", "HEAD"), in_place=True)


def _top(folder: Path) -> Path:
    """Return the top folder of the repository, which must have a commit."""
    try:
        _git(folder, "rev-parse", "--verify", "HEAD")
        return Path(_git(folder, "rev-parse", "--show-toplevel"))
    except CheckoutError as error:
        raise CheckoutError(
            f"{error}; a git repository with a commit is needed. In an archive that was "
            "downloaded: git init && git add --all && git commit --message 'as downloaded'"
        ) from None


@contextmanager
def worktree(revision: str, name: str) -> Iterator[Checkout]:
    """Check out a revision into a new folder, which is removed afterwards.

    Args:
        revision: a commit, branch or tag.
        name: the name of the folder; the run's id.

    Raises:
        UnknownRevision: there is no such revision.
        CheckoutError: there is no repository, or git fails.
    """
    source = _source()
    commit = _resolve(source.repository, revision)
    repository, runs = source.repository, source.repository / RUNS
    runs.mkdir(exist_ok=True)
    root = runs / name
    with ExitStack() as held:
        with _locked(runs):
            # Held until this process ends: a worktree whose lock is free was left behind.
            held.enter_context(FileLock(runs / f"{name}.lock"))
            # A crashed run that is restarted has the same name.
            left = (*_sweep(repository, runs), *([name] if root.exists() else []))
            shutil.rmtree(root, ignore_errors=True)
            _git(repository, "worktree", "prune")
            _git(repository, "worktree", "add", "--quiet", "--force", "--detach", str(root), commit)
        try:
            _share_cache(source, root)
            _bring_own_images(source.folder, root)
            yield Checkout(root, repository, commit, left=left)
        finally:
            with _locked(runs):
                _remove(repository, root)


def overlooked(checkout: Checkout) -> str | None:
    """Return a warning where tracked files have uncommitted changes, which a worktree lacks.

    Nobody edits the clone of a repository that PIPELINE_REPOSITORY names.
    """
    if os.environ.get(REPOSITORY):
        return None
    if not _git(checkout.repository, "status", "--porcelain", "--untracked-files=no"):
        return None
    return f"the working tree has changes that are not committed; what runs is {checkout.commit}"


@dataclass(frozen=True)
class _Source:
    """The clone that worktrees are made from, and the folder with the files that git ignores."""

    repository: Path
    folder: Path


def _source() -> _Source:
    address = os.environ.get(REPOSITORY)
    if not address:
        root = _top(Path(__file__).parent)
        return _Source(root, root)
    home = Path(os.environ.get(HOME) or Path.home() / "pipeline").absolute()
    home.mkdir(parents=True, exist_ok=True)
    clone = home / "repository"
    try:
        with _locked(home):
            if not clone.exists():
                draft = home / f".{os.getpid()}-repository"
                _git(home, "clone", "--quiet", "--no-checkout", address, str(draft))
                (draft / RUNS).mkdir()
                draft.rename(clone)
        # Git must not see a half-made worktree.
        with _locked(clone / RUNS):
            _git(clone, "fetch", "--quiet", "--tags", "--force", "--prune", "origin")
            _git(clone, "remote", "set-head", "origin", "--auto")
    except CheckoutError as error:
        raise CheckoutError(f"cannot bring {address} up to date: {error}", retryable=True) from None
    return _Source(clone, Path(address))


def _resolve(repository: Path, revision: str) -> str:
    """Return the commit; in our own clone, branches are those of its origin."""
    ours = [f"refs/remotes/origin/{revision}"] if os.environ.get(REPOSITORY) else []
    for name in (*ours, revision):
        with suppress(CheckoutError):
            return _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    branches = _git(
        repository, "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/heads", "refs/remotes"
    )
    allowed = sorted(set(branches.split()) - {"HEAD"})
    raise UnknownRevision(
        f"no revision {revision!r} in {repository}; allowed: a commit, a tag, or a branch: "
        f"{', '.join(allowed) or 'there is none'}"
    )


def _share_cache(source: _Source, root: Path) -> None:
    """Let DVC in the worktree use the repository's cache, remotes and credentials."""
    local = ConfigObj(str(source.folder / ".dvc" / "config.local"))
    committed = ConfigObj(str(root / ".dvc" / "config"))
    given = next((c["cache"]["dir"] for c in (local, committed) if "dir" in c.get("cache", {})), "")
    cache = (source.repository / ".dvc" / (given or "cache")).resolve()
    local.setdefault("cache", {}).update({"dir": str(cache), "type": "hardlink,copy"})
    # Else DVC would leave a folder of its own behind for every run.
    local.setdefault("core", {})["site_cache_dir"] = str(root / ".dvc" / "tmp" / "site")
    target = root / ".dvc" / "config.local"
    # It may contain the password of a remote.
    target.touch(0o600)
    local.filename = str(target)
    local.write()


def _bring_own_images(folder: Path, root: Path) -> None:
    """Link own images, which are not in git, into the worktree; copy them where that fails.

    What cannot be read is left out: it may belong to another dataset, and else `ingest` names it.
    """
    images = folder / OWN_IMAGES
    if images.is_dir():
        with suppress(shutil.Error):
            shutil.copytree(images, root / OWN_IMAGES, copy_function=_link, dirs_exist_ok=True)
    for place in (folder / WATCHED).glob("*"):
        target = root / WATCHED / place.name
        if not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if place.is_symlink():
                target.symlink_to(place.readlink())
            elif place.is_dir():
                shutil.copytree(place, target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except FileExistsError:
        pass  # it came with the commit
    except OSError:
        shutil.copy2(source, target)
    return target


def _sweep(repository: Path, runs: Path) -> tuple[str, ...]:
    """Remove the worktrees of killed runs, whose locks are free, and return their names."""
    left = []
    for path in runs.glob("*.lock"):
        with suppress(Timeout), FileLock(path, blocking=False):
            _remove(repository, path.with_suffix(""))
            left.append(path.stem)
    return tuple(left)


def _remove(repository: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _git(repository, "worktree", "prune")
    root.with_name(f"{root.name}.lock").unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the list of worktrees, or the clone."""
    with FileLock(folder / ".alone"):
        yield


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise CheckoutError("git is not installed; it is needed to check revisions out") from None
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split()) or f"git {arguments[0]} failed"
        raise CheckoutError(f"{folder}: {reason}") from None
    return done.stdout.strip()
