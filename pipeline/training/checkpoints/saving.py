"""When a training is saved: after its epochs, in a thread, while the next epoch trains."""

import math
import sys
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from pipeline.errors import ArtifactError, TrainingError
from pipeline.training.checkpoints.files import Found, Slot
from pipeline.training.checkpoints.snapshot import Snapshot, put_back, take
from pipeline.training.state import TrainingState

# Epochs that take less share a checkpoint.
LEAST_SECONDS = 1.0
# The most of a training's time that its checkpoints may take.
MOST_SHARE = 0.02


class Checkpoints:
    """The checkpoint of one training; a context manager.

    Args:
        slot: where it lies.
        resume: whether to go on from the one that is there; else it is removed.

    Attributes:
        found: where an interrupted training stopped; None for a new training.
        durable: the number of the last epoch that a kill cannot undo; infinite where nothing is
            saved, so that nothing need wait for it.
    """

    def __init__(self, slot: Slot, *, resume: bool = True) -> None:
        self.found: Found | None = None
        self.durable: float = math.inf
        self._slot, self._resume = slot, resume
        self._facts: dict[str, Any] = {}
        self._saves = False
        self._failure: ArtifactError | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        """Claim the place, and read what is there."""
        try:
            self._saves = self._slot.claim()
        except OSError as error:
            warnings.warn(f"no checkpoints are kept: {error}", stacklevel=2)
            return self
        if not self._saves:
            print(
                "another training of the same is at work: this one begins at the first epoch and "
                "keeps no checkpoints",
                file=sys.stderr,
            )
            return self
        self.durable = 0
        if not self._resume:
            self._slot.remove()
            return self
        try:
            self.found = self._slot.read()
        except ArtifactError as error:
            warnings.warn(f"{error}; training begins at the first epoch", stacklevel=2)
            self._slot.remove()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the checkpoint, unless the training was interrupted.

        A training that went wrong by itself, as its loss was not finite, would do so again.
        """
        self._writer.shutdown()
        if self._saves:
            if error is None or isinstance(error, TrainingError):
                self._slot.remove()
            self._slot.release()

    def note(self, facts: dict[str, Any]) -> None:
        """Set what is written with the checkpoints, and write it to the one that was found."""
        self._facts = facts
        if self.found:
            self._writing = self._writer.submit(self._write, self.found.snapshot, facts, 0.0)

    def restore(self, state: TrainingState) -> None:
        """Bring a new state to where the interrupted training was.

        Raises:
            TrainingError: the checkpoint does not fit the state.
        """
        if self.found:
            put_back(self.found.snapshot, state)
            self.durable = len(state.epochs)

    def add(self, state: TrainingState) -> None:
        """Save the state after an epoch, unless the last checkpoint is too recent."""
        self._warn()
        at_work = self._writing is not None and not self._writing.done()
        if self._saves and not at_work and time.monotonic() >= self._due:
            self._save(state)

    def finish(self, state: TrainingState) -> None:
        """Save the state after the last epoch, and wait until it is written."""
        if self._writing:
            self._writing.result()
        if self._saves and self.durable < len(state.epochs):
            self._save(state).result()
        self._warn()

    def _save(self, state: TrainingState) -> Future[None]:
        start = time.perf_counter()
        snapshot, facts = take(state), self._facts
        taken = time.perf_counter() - start
        self._due = time.monotonic() + LEAST_SECONDS
        self._writing = self._writer.submit(self._write, snapshot, facts, taken)
        return self._writing

    def _write(self, snapshot: Snapshot, facts: dict[str, Any], taken: float) -> None:
        begun, start = time.monotonic(), time.thread_time()
        try:
            self._slot.write(snapshot, facts)
            self.durable = max(self.durable, snapshot.epoch)
        except ArtifactError as error:
            self._failure, self.durable = error, math.inf
        # The time of the disk costs the training nothing.
        seconds = taken + time.thread_time() - start
        self._due = max(self._due, begun + seconds / MOST_SHARE)

    def _warn(self) -> None:
        """Say that writing failed, once; training goes on."""
        if self._failure is not None:
            warnings.warn(f"{self._failure}; a kill now loses more than an epoch", stacklevel=3)
            self._failure = None
