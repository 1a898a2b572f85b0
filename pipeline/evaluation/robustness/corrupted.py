"""How accurate a model is on test images that are corrupted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels, Pixels
from pipeline.evaluation.predictions import Hits, Predictions, Probabilities
from pipeline.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from pipeline.evaluation.shares import CONFIDENCE, RESAMPLES, Interval, share_interval
from pipeline.parallel import spread

# Every image of a sample is predicted thirty times, so that large ones are sampled more sparsely.
MOST_IMAGES, FEWEST_IMAGES = 500, 40
MOST_VALUES = 2**22
Predict = Callable[[Images], Probabilities]


@dataclass(frozen=True)
class Cell:
    """The accuracy under one corruption at one severity, with its interval.

    Attributes:
        severity: 0 for the same images as they are.
    """

    corruption: str
    severity: int
    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Corrupted:
    """The accuracy under every corruption.

    Attributes:
        cells: each corruption from severity 0 to 5.
        accuracy: the mean over all corruptions and severities from 1.
        interval: of that mean, by drawing the images anew.
    """

    cells: tuple[Cell, ...]
    accuracy: float
    interval: Interval


def corrupted(predict: Predict, x: Images, predictions: Predictions) -> Corrupted:
    """Corrupt test images, and measure how many a model still gets right.

    Args:
        predict: returns the probabilities of `uint8` images; called by several threads at once.
        x: images of the test split; of many or large ones each corruption gets another sample.
        predictions: of the images as they are.
    """
    right, asked = np.zeros(len(x)), np.zeros(len(x))
    cells = []
    for kind, rows in zip(CORRUPTIONS, samples(len(x), x.shape[1:]), strict=True):
        images, known = np.asarray(x[rows]), predictions.of(rows)
        cells.append(_cell(kind.name, 0, known.right))
        answers = spread(partial(_answers, predict, kind, images), SEVERITIES)
        for severity, answered in zip(SEVERITIES, answers, strict=True):
            hits = answered == known.y
            cells.append(_cell(kind.name, severity, hits))
            right[rows] += hits
            asked[rows] += 1
    there = asked > 0
    mean, interval = _mean(right[there], asked[there])
    return Corrupted(tuple(cells), mean, interval)


def _answers(predict: Predict, kind: Corruption, images: Pixels, severity: int) -> Labels:
    answered: Labels = predict(kind.at(images, severity)).argmax(axis=1)
    return answered


def _cell(name: str, severity: int, hits: Hits) -> Cell:
    return Cell(name, severity, len(hits), float(hits.mean()), *share_interval(hits))


def samples(count: int, image_shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Return the rows that each corruption gets: all, or as many others as there are.

    All severities of a corruption have the same images, so that they can be compared.
    """
    most = max(FEWEST_IMAGES, MOST_VALUES // int(np.prod(image_shape)))
    size = min(count, MOST_IMAGES, most)
    order = np.random.default_rng(0).permutation(count)
    starts = [number * size for number in range(len(CORRUPTIONS))]
    return [np.sort(np.take(order, range(at, at + size), mode="wrap")) for at in starts]


def _mean(right: NDArray[np.float64], asked: NDArray[np.float64]) -> tuple[float, Interval]:
    """Return the share that is right; the answers about one image are drawn together."""
    mean = float(right.sum() / asked.sum())
    drawn = np.random.default_rng(0).integers(len(right), size=(RESAMPLES, len(right)))
    shares = right[drawn].sum(axis=1) / asked[drawn].sum(axis=1)
    low, high = map(float, np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return mean, (min(low, mean), max(high, mean))
