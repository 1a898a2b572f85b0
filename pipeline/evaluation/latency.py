"""How long a model takes to answer: for one image, and for many."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts.datasets import Images

SECONDS = 0.25
FEWEST_CALLS = 5

Ask = Callable[[Images], Any]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, median and 95th percentile, and images per second in batches."""

    p50_ms: float
    p95_ms: float
    images_per_second: float


def latency(ask: Ask, image_shape: tuple[int, ...], batch_size: int) -> Latency:
    """Measure how long a model takes to answer.

    Args:
        ask: returns when the answer is there.
        image_shape: height, width, channels.
        batch_size: images that are asked about at once.
    """
    one = np.zeros((1, *image_shape), np.uint8)
    many = np.zeros((batch_size, *image_shape), np.uint8)
    single, batch = times(ask, one), times(ask, many)
    return Latency(
        p50_ms=float(np.percentile(single, 50)) * 1000,
        p95_ms=float(np.percentile(single, 95)) * 1000,
        images_per_second=batch_size / float(np.median(batch)),
    )


def times(ask: Ask, images: Images, seconds: float = SECONDS) -> list[float]:
    """Return the seconds of each call, after one that does not count.

    Args:
        ask: see `latency`.
        images: of every call.
        seconds: how long to go on; at least five calls are made.
    """
    ask(images)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < FEWEST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        ask(images)
        taken.append(time.perf_counter() - start)
    return taken
