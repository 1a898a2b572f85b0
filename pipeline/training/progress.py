"""The progress of a training: a live line on a terminal, a log elsewhere."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.progress import TimeRemainingColumn as TimeLeft

from pipeline.training.history import Epoch, History, Progress

SECONDS_BETWEEN_LINES = 1.0
# A line of `TrainProgress` about an epoch, for programs that read it from a pipe.
LINE = re.compile(r"(?P<name>.+): epoch (?P<epoch>\d+)/(?P<epochs>\d+) (?P<text>loss .*)")


class TrainProgress:
    """Show epochs, loss, accuracy and the time left; a context manager.

    Args:
        name: what is trained.
        epochs: how many it trains in all.
        done: how many an earlier process has trained.
    """

    def __init__(self, name: str, epochs: int, done: int = 0) -> None:
        self.name, self.epochs = name, epochs
        self.live = sys.stderr.isatty()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[text]}"),
        ]
        self.bar = Bar(*columns, console=Console(stderr=True), disable=not self.live)
        self.task = self.bar.add_task(name, total=epochs, completed=done, text="compiling")
        self.left = self.validated = ""
        self.last_line_at = 0.0

    def __enter__(self) -> Self:
        """Start the live line."""
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the live line; its last state stays on the screen."""
        self.bar.stop()

    def on_progress(self, now: Progress) -> None:
        """Update the live line, about once a second."""
        self.left = f", {clock(now.seconds_left)} left"
        self._move(now.epoch - 1 + now.step / now.steps, now)

    def on_epoch(self, row: Epoch) -> None:
        """Log a line per epoch, at most one a second, and always the last one."""
        self.validated = f" val_accuracy {row.val_accuracy:.4f}"
        self._move(row.epoch, row)
        now, last = time.monotonic(), row.epoch == self.epochs
        if not self.live and (last or now - self.last_line_at >= SECONDS_BETWEEN_LINES):
            self.last_line_at = now
            self._print(row, self.epochs, "" if last else self.left)

    def finish(self, history: History) -> None:
        """Say it if the training ended before its last epoch, and fill the bar."""
        if not history.stopped:
            return
        done, planned = len(history.epochs), self.epochs
        best = history.kept
        text = (
            f"stopped, of {planned}; best epoch {best.epoch} val_accuracy {best.val_accuracy:.4f}"
        )
        if self.live:
            self.bar.update(self.task, total=done, completed=done, text=f"{done}/{done} {text}")
        else:
            self._print(history.epochs[-1], done, f", {text}")

    def _print(self, row: Epoch, epochs: int, more: str) -> None:
        print(
            f"{self.name}: epoch {row.epoch}/{epochs} loss {row.loss:.4f} "
            f"accuracy {row.accuracy:.4f} val_loss {row.val_loss:.4f} "
            f"val_accuracy {row.val_accuracy:.4f}{more}",
            file=sys.stderr,
            flush=True,
        )

    def _move(self, completed: float, now: Epoch | Progress) -> None:
        """Set the text of the live line, which must fit a terminal of 100 columns."""
        left = self.left if completed < self.epochs else ""
        text = f"{now.epoch}/{self.epochs} loss {now.loss:.4f} accuracy {now.accuracy:.4f}"
        self.bar.update(self.task, completed=completed, text=text + self.validated + left)


@contextmanager
def features_progress(name: str, images: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told how many images are done: a live bar, or a line a second."""
    live, done, last_line_at = sys.stderr.isatty(), 0, time.monotonic()
    columns = [TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeLeft()]
    with Bar(*columns, console=Console(stderr=True), disable=not live) as bar:
        task = bar.add_task(f"{name} features", total=images)

        def advance(more: int) -> None:
            nonlocal done, last_line_at
            done += more
            bar.update(task, completed=done)
            now = time.monotonic()
            late = done == images or now - last_line_at >= SECONDS_BETWEEN_LINES
            if more and late and not live:
                last_line_at = now
                print(f"{name}: features of {done}/{images} images", file=sys.stderr, flush=True)

        yield advance


def clock(seconds: float) -> str:
    """Return `1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
