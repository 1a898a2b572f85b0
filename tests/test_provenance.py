import subprocess

import pytest

from pipeline.provenance import environment, git_code, requirements


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
    (repository / "code.py").write_text("1")
    commit()
    state = git_code()
    assert state.commit
    assert len(state.commit) == 40
    assert state.branch == "work"
    assert state.dirty is False


@pytest.mark.parametrize(
    ("name", "dirty"), [("code.py", True), ("dvc.lock", False), ("data/accepted/a.json", False)]
)
def test_what_the_pipeline_writes_does_not_make_the_tree_dirty(repository, name, dirty):
    commit()
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("new")
    assert git_code().dirty is dirty


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


def test_the_environment_has_exact_versions():
    assert all(line.count("==") == 1 for line in requirements())
    assert environment().packages["numpy"].startswith("2.")
