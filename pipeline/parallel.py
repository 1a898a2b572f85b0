"""One function on many pieces at once, in threads or in processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from pipeline.errors import WorkerError

MOST_THREADS, MOST_PROCESSES = 16, 8
Piece = TypeVar("Piece")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not Linux, where models are served as well


def spread(
    work: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    processes: bool = False,
    threads: int | None = None,
) -> Generator[Result, None, None]:
    """Yield `work(piece)` for each piece, in order.

    Pieces are taken as the work proceeds, so that only a few are in memory. Close the iterator to
    stop early: it waits for the work that has begun. Processes import the script that is running,
    which therefore needs `if __name__ == "__main__":`.

    Args:
        work: a function at the top level of a module, so that processes can import it.
        pieces: the arguments.
        processes: whether to use processes, which take up to a second to start, instead of
            threads. They keep all cores busy even if most of the time is spent in Python code, as
            with small images; threads would take turns.
        threads: how many, where they wait more than they work; None: one for each core.

    Raises:
        WorkerError: a process died.
    """
    pool, workers = _pool(processes, threads)
    running: deque[Future[Result]] = deque()
    try:
        for piece in pieces:
            with _uninterrupted():
                running.append(pool.submit(work, piece))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"one of {workers} worker processes died; if memory is short, put "
            "`taskset --cpu-list 0` before the command to work without them"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(processes: bool, threads: int | None) -> tuple[Executor, int]:
    if threads:
        return ThreadPoolExecutor(threads), threads
    count = cores()
    if count == 1 or not processes:
        workers = min(count, MOST_THREADS)
        return ThreadPoolExecutor(workers), workers
    workers = min(count, MOST_PROCESSES)
    # Not forked: a fork of a process with threads, such as TensorFlow's, may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _watch_parent), workers


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block Ctrl-C; a process started meanwhile inherits this and leaves Ctrl-C to its parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch_parent() -> None:
    """Exit when the parent does, even if it is killed."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
