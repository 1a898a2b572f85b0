"""What git says of the working tree: which files are code, and what becomes of the others."""

import hashlib
import os
import subprocess

import pytest

from pipeline.tracking import working_tree
from pipeline.tracking.working_tree import git_code


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["init", "-q", "-b", "work"],
        ["config", "user.name", "test"],
        ["config", "user.email", "test@localhost"],
    ):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def commit():
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "x"], check=True)


def test_a_clean_commit(repository):
    (repository / "pipeline").mkdir()
    (repository / "pipeline" / "code.py").write_text("1")
    commit()
    state = git_code()
    assert state.commit
    assert len(state.commit) == 40
    assert state.branch == "work"
    assert state.dirty is False


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("pipeline/models/build.py", True),
        ("flows/train.py", True),
        ("dvc.yaml", True),
        ("pyproject.toml", True),
        ("requirements/run.txt", True),
        ("scripts/prepare.py", True),
        ("settings.yaml", True),
        ("sub/weights.csv", True),
        ("dvc.lock", False),
        ("params.yaml", False),
        ("data/accepted/a.json", False),
        ("data/own/a/1.png", False),
        ("README.md", False),
        ("notes.txt", False),
        ("docs/team.md", False),
        (".dvc/config", False),
        ("pipeline.log", False),
        ("scripts/other.py", False),
    ],
)
@pytest.mark.parametrize("tracked", [True, False])
def test_only_code_makes_the_tree_dirty(repository, name, dirty, tracked):
    (repository / "dvc.yaml").write_text(GRAPH)
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if tracked:
        path.write_text(GRAPH if name == "dvc.yaml" else "old")
        commit()
        assert git_code().dirty is False
    else:
        commit()
    path.write_text(GRAPH + "  # new" if name == "dvc.yaml" else "new")
    code = git_code()
    listed = not dirty and not name.startswith(working_tree.NOT_CODE)
    assert code.dirty is dirty or (name == "dvc.yaml" and not tracked)
    assert bool(code.diff) is code.dirty
    assert code.others == ({name: hashlib.md5(b"new").hexdigest()} if listed else {})


GRAPH = """
stages:
  prepare:
    cmd: python scripts/prepare.py
    deps: [scripts/prepare.py, data/own, "data/raw/${dataset}"]
    params: [dataset, {settings.yaml: [a]}]
    outs: [data/raw]
  weigh:
    foreach: ${models}
    do:
      cmd: cat weights.csv
      wdir: sub
      deps: [weights.csv]
"""


@pytest.mark.parametrize("graph", ["", "stages: {a: null}", "- a", "{", "stages: {a: {deps: 1}}"])
def test_a_graph_that_is_none_names_nothing(repository, graph):
    (repository / "dvc.yaml").write_text(graph)
    commit()
    (repository / "pipeline").mkdir()
    (repository / "pipeline" / "a.py").write_text("1")
    assert git_code().dirty is True


def test_the_diff_makes_of_the_commit_what_was_there(repository, tmp_path_factory):
    (repository / "pipeline").mkdir()
    for name in ("changed.py", "gone.py"):
        (repository / "pipeline" / name).write_text("old\n")
    (repository / "README.md").write_text("old\n")
    commit()
    changed = {"pipeline/changed.py": "new ü\n".encode(), "pipeline/ä [1]*.bin": bytes(range(256))}
    for name, content in changed.items():
        (repository / name).write_bytes(content)
    (repository / "pipeline" / "gone.py").unlink()
    (repository / "params.yaml").write_text("dataset: digits\n")
    (repository / "README.md").write_text("new\n")
    before = (repository / ".git" / "index").read_bytes()
    code = git_code()
    assert (repository / ".git" / "index").read_bytes() == before
    assert "params.yaml" not in code.diff
    other = tmp_path_factory.mktemp("other") / "clone"
    subprocess.run(["git", "clone", "-q", str(repository), str(other)], check=True)
    subprocess.run(["git", "apply"], cwd=other, input=code.diff, text=True, check=True)
    assert (other / "README.md").read_text() == "old\n"
    assert not (other / "pipeline" / "gone.py").exists()
    for name, content in changed.items():
        assert (other / name).read_bytes() == content


def test_a_project_in_a_folder_of_a_repository(repository, monkeypatch):
    (repository / "project" / "pipeline").mkdir(parents=True)
    commit()
    (repository / "project" / "pipeline" / "a.py").write_text("1")
    (repository / "project" / "notes.txt").write_text("2")
    (repository / "elsewhere.txt").write_text("3")
    monkeypatch.chdir(repository / "project")
    code = git_code()
    assert code.dirty is True
    assert "project/pipeline/a.py" in code.diff
    assert list(code.others) == ["notes.txt"]


def test_files_beside_the_code_are_named_and_never_read_into_a_passport(repository, monkeypatch):
    (repository / "tracked.md").write_text("old")
    (repository / "gone.md").write_text("old")
    commit()
    secret = "hunter2-is-no-password"
    for name in ("credentials.json", "tracked.md", "large.bin"):
        (repository / name).write_text(secret if name != "large.bin" else secret * 10)
    (repository / "gone.md").unlink()
    os.mkfifo(repository / "pipe")
    monkeypatch.setattr(working_tree, "LARGEST_OTHER", 100)
    code = git_code()
    assert code.dirty is False
    md5 = hashlib.md5(secret.encode()).hexdigest()
    assert {n: code.others[n] for n in ("credentials.json", "tracked.md")} == dict.fromkeys(
        ("credentials.json", "tracked.md"), md5
    )
    assert code.others["gone.md"] == code.others["large.bin"] == ""
    assert secret not in code.model_dump_json()


def test_not_every_file_of_a_forgotten_folder_is_listed(repository, monkeypatch):
    commit()
    (repository / "images").mkdir()
    for number in range(5):
        (repository / "images" / f"{number}.txt").write_text("x")
    monkeypatch.setattr(working_tree, "MOST_OTHERS", 3)
    assert list(git_code().others) == [f"images/{number}.txt" for number in range(3)]


def test_a_diff_that_is_too_long_is_no_part_of_a_passport(repository):
    commit()
    (repository / "pipeline").mkdir()
    (repository / "pipeline" / "data.csv").write_text("1,2,3\n" * 1_000_000)
    code = git_code()
    assert code.dirty
    assert code.diff == ""


def test_a_detached_commit_is_named_after_a_branch(repository):
    commit()
    commit()
    subprocess.run(["git", "checkout", "-q", "--detach", "HEAD~1"], check=True)
    assert git_code().branch == "work~1"


def test_a_repository_without_a_commit(repository):
    assert git_code().commit is None


def test_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    state = git_code()
    assert (state.commit, state.branch, state.dirty) == (None, None, None)


def test_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_code().commit is None
