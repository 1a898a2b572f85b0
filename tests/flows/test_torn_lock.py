"""dvc.lock, cut off at any place, and what becomes of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from flows.execution.torn_lock import set_aside
from tests.conftest import runner

GRAPH = """
vars: [{names: [a, b]}]
stages:
  make:
    foreach: ${names}
    do:
      cmd: mkdir -p made/${item} && cp source.txt made/${item}/x && echo ${item} >> ran.txt
      deps: [source.txt]
      params: [given.epochs, given.name]
      outs: ["made/${item}"]
"""
# The umlaut is two bytes, of which a cut may leave one.
PARAMS = "given: {epochs: 3, name: für alle}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a small project whose two stages have run, and its dvc.lock, which is committed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "source.txt").write_text("pixels\n")
    (tmp_path / ".gitignore").write_text("ran.txt\nmade\ndvc.lock.torn\n")
    git = "git -c user.name=test -c user.email=test@localhost"
    for command in ("git init -q", "dvc init -q", "dvc repro -q", "git add -A"):
        subprocess.run(command.split(), check=True)
    subprocess.run([*git.split(), "commit", "-qm", "x"], check=True)
    return tmp_path, (tmp_path / "dvc.lock").read_bytes()


def dvc_reads(folder):
    try:
        with Repo(str(folder)) as repo:
            repo.status()
    except Exception:  # what is cut off within a word ends in errors of many kinds
        return False
    return True


def test_cut_off_anywhere_dvc_reads_what_is_there_afterwards(project):
    folder, whole = project
    lock, torn = folder / "dvc.lock", folder / "dvc.lock.torn"
    in_umlaut = whole.index("ü".encode()) + 1
    in_hash = whole.index(b"hash: md5") + len(b"hash: m")
    at_line_end = whole.index(b"md5: ") - len(b"  hash: md5\n    ")
    unread = 0
    for end in (0, in_umlaut, in_hash, at_line_end, *range(1, len(whole), 31)):
        lock.write_bytes(whole[:end])
        torn.unlink(missing_ok=True)
        read = dvc_reads(folder)
        said = set_aside(folder)
        assert read or said, whole[:end]
        assert dvc_reads(folder), whole[:end]
        if said is None:
            assert whole[:end].endswith(b"\n")
            continue
        assert "dvc.lock.torn now; that of the last commit takes its place" in said
        assert (lock.read_bytes(), torn.read_bytes()) == (whole, whole[:end])
        unread += not read
    assert unread > 3
    lock.write_bytes(whole)
    assert set_aside(folder) is None


def test_where_none_is_committed_dvc_finds_all_in_its_run_cache(project):
    folder, whole = project
    subprocess.run(["git", "rm", "-q", "--cached", "dvc.lock"], check=True)
    git = "git -c user.name=test -c user.email=test@localhost commit -qm y"
    subprocess.run(git.split(), check=True)
    (folder / "dvc.lock").write_bytes(whole[: whole.index(b"md5") + 2])
    assert "is dvc.lock.torn now; DVC's cache has the rest" in str(set_aside(folder))
    assert not (folder / "dvc.lock").exists()
    ran = (folder / "ran.txt").read_text()
    with Repo(str(folder)) as repo:
        repo.reproduce()
    assert (folder / "ran.txt").read_text() == ran, "nothing runs again"
    assert (folder / "dvc.lock").read_bytes() == whole


@pytest.mark.parametrize("at_work", [True, False])
def test_what_is_being_written_or_decided_is_left_alone(project, at_work):
    folder, whole = project
    torn = whole[: whole.index(b"md5") + 2]
    ours = b"<<<<<<< HEAD\nschema: '2.0'\n=======\n"
    content = torn if at_work else whole + ours
    (folder / "dvc.lock").write_bytes(content)
    assert not dvc_reads(folder)
    if at_work:
        with Repo(str(folder)).lock:
            assert set_aside(folder) is None
    else:
        assert set_aside(folder) is None
    assert (folder / "dvc.lock").read_bytes() == content


def test_make_run_goes_on_from_the_cache(workspace_copy):
    venv = workspace_copy / ".venv"
    venv.mkdir()
    (venv / "run.stamp").touch()
    run = runner(workspace_copy)
    lock = workspace_copy / "dvc.lock"
    whole = lock.read_bytes()
    for cut in (b"cmd: pipeline train cnn", b"path: models/digits/dense/provenance.json"):
        lock.write_bytes(whole[: whole.index(cut) + 5])
        assert run("dvc", "status", check=False).returncode != 0
        done = run("make", "run")
        assert done.stderr.count("warning: dvc.lock was cut off") == 1
        assert "Running stage" not in done.stdout
        assert "production" in done.stdout
        assert lock.read_bytes() == whole
        assert run("git", "status", "--porcelain").stdout == ""
