"""A progress bar on stderr, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft


@contextmanager
def bar(
    title: str, total: int | None, show: bool, done: int = 0, in_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances the bar by a number of steps, or bytes.

    Args:
        title: what is going on.
        total: steps in all; None: not known.
        show: whether to show it; it is never shown where stderr is no terminal.
        done: steps that were done before.
        in_bytes: whether the steps are bytes.
    """
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeLeft(),
    ]
    silent = not (show and sys.stderr.isatty())
    with Progress(*columns, console=Console(stderr=True), disable=silent) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda steps: progress.advance(task, steps)
