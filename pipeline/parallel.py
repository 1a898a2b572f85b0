"""One function on many pieces at once: in threads, or in processes where there is much to do."""

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
    return len(os.sched_getaffinity(0))


def spread(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], processes: bool
) -> Generator[Result, None, None]:
    """Yield what `work` makes of each piece, in the order of the pieces.

    Pieces are asked for as the work goes on, so that few of them are in memory. Close the iterator
    where not all is asked for: it then waits for the work that has begun, and ends. Processes
    import the script that is running, so that it needs its `if __name__ == "__main__":`.

    Args:
        work: a function of a module, which processes find by its name.
        pieces: what it is called with.
        processes: whether there is so much to do that it is worth the second or less that processes
            take to start. They make use of all cores also where Python itself is most of the work,
            as it is with small images; threads do that in turns.

    Raises:
        WorkerError: a process died.
    """
    pool, workers = _pool(processes)
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
            f"one of {workers} processes that shared the work died; where memory is short, "
            "`taskset --cpu-list 0` before the command makes it do with one"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(processes: bool) -> tuple[Executor, int]:
    count = cores()
    if count == 1 or not processes:
        workers = min(count, MOST_THREADS)
        return ThreadPoolExecutor(workers), workers
    workers = min(count, MOST_PROCESSES)
    # Not forked: a copy of a process that has threads, as TensorFlow's, may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _watch_parent), workers


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off; a process that is started meanwhile leaves it to its parent for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch_parent() -> None:
    """End when the parent does, even if it was killed; without it nobody would say so."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
