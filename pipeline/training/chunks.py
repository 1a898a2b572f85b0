"""How many steps of a training run at a time."""

import time
from typing import Any

from pipeline.training.backends.sums import Indices, Mirrored, Sums, Train

SECONDS_PER_CHUNK = 1.0


class Chunks:
    """How many steps run at a time, so that a chunk takes about a second, and the time left."""

    def __init__(self, total_steps: int) -> None:
        self.size, self.done, self.total = 1, 0, total_steps
        self.start = time.perf_counter()

    def timed(self, train: Train, x: Any, y: Any, indices: Indices, mirrored: Mirrored) -> Sums:
        """Run a chunk, and set the size of the next ones from the time that it took."""
        start = time.perf_counter()
        sums = train(x, y, indices, mirrored)
        seconds = time.perf_counter() - start
        fitting = int(len(indices) * SECONDS_PER_CHUNK / seconds)
        self.size = max(1, min(fitting, 8 * self.size))
        if not self.done:
            self.start = time.perf_counter()  # the first chunk compiles and is not counted
        self.done += len(indices)
        return sums

    @property
    def seconds_left(self) -> float:
        """The time for the steps that are left, at the pace so far."""
        return (time.perf_counter() - self.start) / self.done * (self.total - self.done)
