"""The process that runs DVC stages: what it says of them, and how it ends."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows.execution.checkout import Checkout
from flows.execution.stages import SECONDS_TO_END, StageFailed, Stages, environment, run_command

GRAPH = """
stages:
  quick:
    deps: [source.txt]
    cmd: echo made > quick.txt && echo 'a line' && echo 'another' >&2
    outs: [quick.txt]
  wrong:
    cmd: "echo 'error: the loss is not finite' >&2; exit 1"
  away:
    cmd: "echo 'error: cannot connect to s3://key:secret@bucket' >&2; exit 75"
  slow:
    cmd: sleep 60
  stubborn:
    cmd: python -c "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "source.txt").touch()
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    return Checkout(tmp_path, tmp_path, "")


@pytest.fixture
def stages(checkout):
    with Stages(checkout, environment(checkout)) as opened:
        yield opened


def descendants(stages):
    return psutil.Process(stages.process.pid).children(recursive=True)


def alive(process):
    ended = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in ended
    return False


def test_a_stage_runs_once_and_tells_all_that_it_says(stages):
    lines: list[str] = []
    assert stages.run("quick", lines.append)
    assert {"a line", "another"} <= set(lines)
    assert not stages.run("quick", lines.append)
    (stages.checkout.root / "quick.txt").unlink()
    (stages.checkout.root / "dvc.lock").unlink()
    assert not stages.run("quick", lines.append), "it comes from DVC's run cache"
    assert (stages.checkout.root / "quick.txt").read_text() == "made\n"


@pytest.mark.parametrize(
    ("name", "reason", "retryable"),
    [
        ("wrong", "wrong: the loss is not finite", False),
        ("away", r"away: cannot connect to s3://\*\*\*@bucket", True),
        ("unknown", "unknown: .*'unknown'", False),
    ],
)
def test_a_failure_says_why_and_whether_it_is_retryable(stages, name, reason, retryable):
    lines: list[str] = []
    with pytest.raises(StageFailed, match=reason) as caught:
        stages.run(name, lines.append)
    assert caught.value.retryable is retryable
    # DVC shows the command, which no secret belongs into; what it says is shown without one.
    assert not any("secret" in line for line in lines if line.startswith("error: "))
    assert stages.run("quick", print), "the next stage can run"


def test_a_busy_lock_may_pass(checkout):
    from dvc.repo import Repo

    with Repo(str(checkout.root)).lock, Stages(checkout, environment(checkout)) as stages:
        with pytest.raises(StageFailed) as caught:
            stages.run("quick", print)
        assert caught.value.retryable


@pytest.mark.parametrize(("name", "seconds"), [("slow", 3), ("stubborn", SECONDS_TO_END + 2)])
def test_what_runs_ends_with_whoever_asked(checkout, name, seconds):
    class Stop(BaseException):
        pass

    def stop(line):
        if line.startswith("> "):
            deadline = time.monotonic() + 10
            while not descendants(stages) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
            running.extend(descendants(stages))
            stopped.append(time.monotonic())
            raise Stop

    running: list[psutil.Process] = []
    stopped: list[float] = []
    with pytest.raises(Stop), Stages(checkout, environment(checkout)) as stages:
        stages.run(name, stop)
    assert running
    assert time.monotonic() - stopped[0] < seconds
    deadline = time.monotonic() + 5  # a killed process is gone a moment after the signal
    while left := [process for process in running if alive(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_process_that_dies_is_no_riddle(stages):
    def kill(line):
        if line.startswith("> "):
            time.sleep(0.5)  # until the stage itself runs, which holds the pipe open
            stages.process.kill()

    since = time.monotonic()
    with pytest.raises(StageFailed, match="the process that runs the stages was killed"):
        stages.run("slow", kill)
    assert time.monotonic() - since < 10


def test_the_environment_is_that_of_the_checkout(checkout, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    given = environment(checkout, {"FLOW_RUN_ID": "abc"})
    assert given["MLFLOW_TRACKING_URI"] == f"sqlite:///{checkout.repository}/mlflow.db"
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(checkout.root)
    assert given["FLOW_RUN_ID"] == "abc"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert environment(checkout)["MLFLOW_TRACKING_URI"] == "http://localhost:1"


def test_a_command_that_fails_or_hangs_says_so(checkout):
    given = environment(checkout)
    run_command(checkout, ["true"], given, 5)
    with pytest.raises(StageFailed, match="no GPU"):
        run_command(checkout, ["sh", "-c", "echo 'error: no GPU' >&2; exit 1"], given, 5)
    with pytest.raises(StageFailed, match=r"sleep 9: no answer within 0.2 s"):
        run_command(checkout, ["sleep", "9"], given, 0.2)
