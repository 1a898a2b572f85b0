"""workers: threads and processes give the same, in order, and end when they should."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline import parallel as workers
from pipeline.errors import WorkerError
from pipeline.parallel import spread


@pytest.fixture(params=["threads", "processes"])
def processes(request, monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 2)
    return request.param == "processes"


def squared(number: int) -> tuple[int, int]:
    time.sleep(0.002 * (number % 3))  # so that they are not done in their order
    return number * number, os.getpid()


def fail(number: int) -> int:
    if number == 3:
        raise OSError(f"no {number}")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order_and_pieces_are_asked_for_as_the_work_goes_on(processes):
    asked = []

    def pieces():
        for number in range(40):
            asked.append(number)
            yield number

    found = []
    for square, process in spread(squared, pieces(), processes):
        found.append(square)
        assert len(asked) <= len(found) + 4
        assert (process != os.getpid()) == processes
    assert found == [number * number for number in range(40)]


def test_what_goes_wrong_in_a_worker_goes_wrong_here(processes):
    with pytest.raises(OSError, match="no 3"):
        list(spread(fail, range(10), processes))


def test_of_one_core_no_process_is_started(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 1)
    assert {process for _, process in spread(squared, range(9), True)} == {os.getpid()}


def test_a_process_that_dies_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 2)
    with pytest.raises(WorkerError, match=r"one of 2 worker processes died; if memory is short"):
        list(spread(die, range(10), True))


FOR_EVER = """
import time
from pipeline import parallel as workers
workers.cores = lambda: 2
print(list(workers.spread(time.sleep, [0.01] * 10 + [100] * 10, True)))
"""


def test_processes_end_with_a_parent_that_was_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", FOR_EVER],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stderr=subprocess.DEVNULL,
    )
    started: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while len(started) < 3 and time.monotonic() < deadline:  # one is Python's own
        time.sleep(0.1)
        started = psutil.Process(parent.pid).children(recursive=True)
    time.sleep(1)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert len(started) >= 3
    assert not alive
