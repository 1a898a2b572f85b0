"""What stands between a clone and its first run."""

import os
import subprocess
import sys
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT, clone, runner

SETUP = ROOT / "requirements" / "setup.sh"


def set_up(python, folder):
    """Run the set-up script of a copy that holds nothing else."""
    (folder / "requirements").mkdir()
    script = folder / "requirements" / "setup.sh"
    script.write_text(SETUP.read_text())
    return subprocess.run(
        ["bash", script, "run"],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0"])
def test_a_python_that_is_too_old_or_too_new_is_refused_on_one_line(tmp_path, version):
    python = tmp_path / "python"
    # It answers as another version would, and is this Python in all else.
    python.write_text(
        f'#!/bin/bash\nif [ "$1" = --version ]; then echo Python {version}; exit; fi\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = ({version.replace(".", ", ")}'
        ', \'final\', 0); exec(sys.argv[1])" "$2"\n'
    )
    python.chmod(0o755)
    done = set_up(python, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"Python 3.11, 3.12 or 3.13 is needed; {python} is Python {version}" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_is_not_there_is_named(tmp_path):
    done = set_up(tmp_path / "nowhere", tmp_path)
    assert done.returncode == 1
    assert "nowhere is not there" in done.stderr


def test_every_requirement_is_pinned_and_hashed():
    for name in ("run.txt", "dev.txt"):
        text = (ROOT / "requirements" / name).read_text()
        entries = [e for e in text.split("\n") if e and not e.startswith((" ", "#"))]
        assert len(entries) > 100
        assert all("==" in entry for entry in entries)
        assert text.count("--hash=sha256:") >= len(entries)


def test_a_requirement_with_extras_is_pinned_with_them():
    # Python 3.11 comes with a pip that takes the newest `name[extra]` where only `name` is pinned.
    text = (ROOT / "requirements" / "dev.txt").read_text()
    entries = [e.rstrip(" \\") for e in text.split("\n") if e and not e.startswith((" ", "#"))]
    pinned = {canonicalize_name(r.name): r.extras for r in map(Requirement, entries)}
    asked = [Requirement(text) for each in distributions() for text in each.requires or ()]
    asked = [r for r in asked if r.extras and (not r.marker or r.marker.evaluate({"extra": ""}))]
    assert "py-key-value-aio" in {r.name for r in asked}
    for requirement in asked:
        assert requirement.extras <= pinned[canonicalize_name(requirement.name)], requirement


@pytest.fixture
def archive(tmp_path):
    """Return the project as one gets it without git, and a function that runs commands in it."""
    archive = tmp_path / "archive"
    archive.mkdir()
    files = clone(tmp_path / "clone")
    subprocess.run(f"git archive HEAD | tar x -C {archive}", shell=True, cwd=files, check=True)
    name, address = "a reader", "reader@localhost"
    identity = {f"GIT_{who}_NAME": name for who in ("AUTHOR", "COMMITTER")}
    identity |= {f"GIT_{who}_EMAIL": address for who in ("AUTHOR", "COMMITTER")}
    return archive, runner(archive, **identity)


def test_an_archive_without_git_says_at_once_which_commands_help(archive):
    folder, run = archive
    for command in (("make", "run"), ("make", "test"), ("make", "stack"), ("pipeline", "run")):
        done = run(*command, check=False)
        assert done.returncode != 0
        said = done.stderr.splitlines()[0]
        assert said.startswith("error: ")
        assert "not a git repository" in said
        assert not (folder / ".venv").exists()
        help_ = said.partition("downloaded: ")[2]
        assert help_ in (ROOT / "README.md").read_text()
    run("git", "init", "-q")
    assert "HEAD" in run("make", "repository", check=False).stderr, "a commit is missing"
    run("bash", "-c", help_)
    run("make", "repository")
    assert "Running stage 'resolve'" in run("dvc", "repro", "resolve").stdout
    assert run("git", "status", "--porcelain", "--", ":!dvc.lock").stdout == ""
