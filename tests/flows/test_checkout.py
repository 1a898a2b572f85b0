"""A worktree per run: made, isolated, cleaned up, whatever happens."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from configobj import ConfigObj

from flows.execution import checkout
from flows.execution.checkout import CheckoutError, worktree


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def source(tmp_path):
    """Return a small repository, with DVC settings and images that git does not hold."""
    folder = tmp_path / "source"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".dvc/config.local").write_text("['remote \"team\"']\n    password = secret\n")
    (folder / ".gitignore").write_text("/.dvc/config.local\n/.dvc/tmp\n/.runs/\n/data/own/\n")
    (folder / "code.py").write_text("one\n")
    (folder / "data/own/flowers").mkdir(parents=True)
    (folder / "data/own/flowers/1.png").write_bytes(b"pixels")
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture
def home(source, tmp_path, monkeypatch):
    """Let runs work on a clone of the repository, as a worker elsewhere does."""
    monkeypatch.setenv(checkout.REPOSITORY, str(source))
    monkeypatch.setenv(checkout.HOME, str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_revision_is_checked_out_and_gone_afterwards(source, home):
    with worktree("main", "a") as run:
        assert run.commit == git(source, "rev-parse", "main")
        assert (run.root / "code.py").read_text() == "one\n"
        assert git(run.root, "status", "--porcelain") == ""
    assert not run.root.exists()
    assert git(run.repository, "worktree", "list").count("\n") == 0
    assert [path.name for path in run.root.parent.iterdir()] == [".alone"]


def test_it_is_gone_after_an_error_too(home):
    with pytest.raises(KeyError), worktree("main", "a") as run:
        raise KeyError
    assert not run.root.exists()


def test_what_is_new_at_the_source_is_found(source, home):
    with worktree("HEAD", "a"):
        pass
    (source / "code.py").write_text("two\n")
    git(source, "commit", "-qam", "two")
    git(source, "tag", "v2")
    for revision in ("HEAD", "main", "v2", git(source, "rev-parse", "HEAD")[:10]):
        with worktree(revision, "a") as run:
            assert (run.root / "code.py").read_text() == "two\n"


def test_runs_share_the_cache_and_nothing_else(source, home):
    with worktree("main", "a") as one, worktree("main", "b") as two:
        (one.root / "code.py").write_text("changed\n")
        assert (two.root / "code.py").read_text() == "one\n"
        settings = [ConfigObj(str(run.root / ".dvc/config.local")) for run in (one, two)]
    caches = {config["cache"]["dir"] for config in settings}
    assert caches == {str(home / "repository/.dvc/cache")}
    assert settings[0]["core"]["site_cache_dir"] != settings[1]["core"]["site_cache_dir"]
    assert settings[0]['remote "team"']["password"] == "secret"


def test_own_images_are_there(source, home):
    (source / "data/own/other").mkdir()
    (source / "data/own/other/broken.png").symlink_to("nowhere")
    (source / "data/watched").mkdir()
    (source / "data/watched/flowers").symlink_to("../own/flowers")
    with worktree("main", "a") as run:
        assert (run.root / "data/own/flowers/1.png").read_bytes() == b"pixels"
        assert (run.root / "data/watched/flowers/1.png").read_bytes() == b"pixels"
    assert (source / "data/own/flowers/1.png").exists()


def test_an_unknown_revision_names_those_there_are(home):
    with (
        pytest.raises(CheckoutError, match=r"no revision 'mian'.*a branch: main$"),
        worktree("mian", "a"),
    ):
        pass


def test_a_repository_that_is_away_may_come_back(home, monkeypatch):
    monkeypatch.setenv(checkout.REPOSITORY, str(home / "nowhere"))
    with (
        pytest.raises(CheckoutError, match=r"cannot bring .* up to date") as caught,
        worktree("main", "a"),
    ):
        pass
    assert caught.value.retryable


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_living_one_is_let_alone(home):
    code = "from flows.execution.checkout import worktree\nimport time\n"
    code += "with worktree('main', 'NAME') as run:\n    print(run.root, flush=True)\n"
    code += "    time.sleep(60)\n"
    runs = {
        name: subprocess.Popen(
            [sys.executable, "-c", code.replace("NAME", name)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(checkout.__file__).parent.parent.parent)},
        )
        for name in ("killed", "living")
    }
    roots = {}
    for name, process in runs.items():
        assert process.stdout is not None
        roots[name] = Path(process.stdout.readline().strip())
        assert roots[name].is_dir()
    runs["killed"].kill()
    runs["killed"].wait()
    with worktree("main", "next") as run:
        assert run.left == ("killed",)
        assert not roots["killed"].exists()
        assert roots["living"].is_dir()
    runs["living"].kill()
    runs["living"].wait()


def test_a_run_that_is_tried_again_gets_a_fresh_folder(home):
    with worktree("main", "a") as run:
        left = run.root
    left.mkdir()
    (left / "half a file").touch()
    with worktree("main", "a") as run:
        assert run.left == ("a",)
        assert not (run.root / "half a file").exists()


def test_twenty_at_once_do_not_meet(home):
    code = "import sys; from flows.execution.checkout import worktree\n"
    code += "with worktree('main', sys.argv[1]) as run: print(run.root.name)"
    environment = {**os.environ, "PYTHONPATH": str(Path(checkout.__file__).parent.parent.parent)}
    started = time.monotonic()
    many = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], env=environment) for n in range(20)
    ]
    assert [process.wait(60) for process in many] == [0] * 20
    assert time.monotonic() - started < 60
