"""How long a model takes to predict: for one image, and for many."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts.datasets import Images

SECONDS = 0.25
FEWEST_CALLS = 5

Predict = Callable[[Images], Any]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, median and 95th percentile, and images per second in batches."""

    p50_ms: float
    p95_ms: float
    images_per_second: float


def latency(predict: Predict, image_shape: tuple[int, ...], batch_size: int) -> Latency:
    """Measure how long a model takes to predict.

    Args:
        predict: predicts, and returns when it is done.
        image_shape: height, width, channels.
        batch_size: images in a call, for the throughput.
    """
    one = np.zeros((1, *image_shape), np.uint8)
    many = np.zeros((batch_size, *image_shape), np.uint8)
    single, batch = times(predict, one), times(predict, many)
    return Latency(
        p50_ms=float(np.percentile(single, 50)) * 1000,
        p95_ms=float(np.percentile(single, 95)) * 1000,
        images_per_second=batch_size / float(np.median(batch)),
    )


def times(predict: Predict, images: Images, seconds: float = SECONDS) -> list[float]:
    """Return the seconds of each call, after one warm-up call.

    Args:
        predict: see `latency`.
        images: for every call.
        seconds: how long to go on; at least `FEWEST_CALLS` calls are made.
    """
    predict(images)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < FEWEST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        predict(images)
        taken.append(time.perf_counter() - start)
    return taken
