"""The two commands of the README, in a fresh clone: up, a run on its own worker, down, up again."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import clone, runner
from tests.stack.conftest import PRIVATE, free_ports
from tests.stack.running import Server, processes

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a fresh clone that has this environment as its .venv, set up."""
    for name in PRIVATE:
        monkeypatch.delenv(name, raising=False)
    folder = clone(tmp_path / "clone")
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for stamp in ("run.stamp", "dev.stamp"):
        (folder / ".venv" / stamp).touch()
    # PostgreSQL's user must reach its data below the folders that pytest keeps closed.
    for parent in [tmp_path, *tmp_path.parents]:
        if parent != Path("/") and parent.stat().st_uid == tmp_path.stat().st_uid:
            parent.chmod(parent.stat().st_mode | 0o711)
    return folder


def client(folder, run):
    """Return what `make stack-env` says."""
    words = shlex.split(run("make", "--silent", "stack-env").stdout)
    return dict(word.split("=", 1) for word in words if word != "export")


def test_the_stack_trains_and_loses_nothing(folder):
    run = runner(folder, **free_ports())
    try:
        said = run("make", "stack")
        env = client(folder, run)
        assert env["PREFECT_API_URL"].removesuffix("/api") in said.stdout
        server = Server(env["PREFECT_API_URL"], env["PREFECT_API_AUTH_STRING"])
        asked = {"models": ["dense"], "overrides": {"dense": {"epochs": 8}}}
        first = server.run("train/cpu", asked, 300)
        run("make", "stack-down")
        assert not processes(str(folder / "docker" / "stack.py"))
        run("make", "stack")
        again = server.run("train/cpu", asked, 300)
        rows = [json.loads(server.artifacts(one)["models"]["data"])[0] for one in (first, again)]
        assert rows[0]["run_id"] == rows[1]["run_id"]
        assert [row["cached"] for row in rows] == [False, True]
        code = (
            "from pipeline.registry.versions import alias_holders; print(alias_holders('digits'))"
        )
        holders = run("python", "-c", code, **env).stdout
        assert "'challenger': 1" in holders
    finally:
        run("make", "stack-down")
    assert not processes("prefect", str(folder))
    assert run("git", "status", "--porcelain").stdout == ""
