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
    ("name", "dirty"),
    [
        ("code.py", True),
        ("dvc.lock", False),
        ("data/accepted/a.json", False),
        ("data/own/a/1.png", False),
    ],
)
def test_what_the_pipeline_writes_does_not_make_the_tree_dirty(repository, name, dirty):
    commit()
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("new")
    assert git_code().dirty is dirty


def test_the_diff_makes_of_the_commit_what_was_there(repository, tmp_path_factory):
    (repository / "code.py").write_text("old\n")
    commit()
    (repository / "code.py").write_text("new ü\n")
    (repository / "new.bin").write_bytes(bytes(range(256)))
    (repository / "params.yaml").write_text("dataset: digits\n")
    before = (repository / ".git" / "index").read_bytes()
    code = git_code()
    assert (repository / ".git" / "index").read_bytes() == before
    assert "params.yaml" not in code.diff
    other = tmp_path_factory.mktemp("other") / "clone"
    subprocess.run(["git", "clone", "-q", str(repository), str(other)], check=True)
    subprocess.run(["git", "apply"], cwd=other, input=code.diff, text=True, check=True)
    for name in ("code.py", "new.bin"):
        assert (other / name).read_bytes() == (repository / name).read_bytes()


def test_a_diff_that_is_too_long_is_no_part_of_a_passport(repository):
    commit()
    (repository / "data.csv").write_text("1,2,3\n" * 1_000_000)
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


def test_the_environment_has_exact_versions():
    assert all(line.count("==") == 1 for line in requirements())
    assert environment().packages["numpy"].startswith("2.")
