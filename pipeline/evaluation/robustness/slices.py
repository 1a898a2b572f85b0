"""How accurate a model is on slices of the test images: dark ones, small ones, one scanner's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Splits, Values
from pipeline.artifacts.models import Slice
from pipeline.artifacts.record import Frozen
from pipeline.evaluation.predictions import Hits
from pipeline.evaluation.robustness.attributes import attributes
from pipeline.evaluation.shares import Interval, lowest_interval, share_interval

# With fewer, the interval of a share of 90% is over 25 points wide.
FEWEST_IMAGES = 20
# Numbers with at most so many different values are taken as they are, and not as thirds.
MOST_VALUES = 6


@dataclass(frozen=True)
class Members:
    """Which test images are in a slice: (n,)."""

    attribute: str
    value: str
    rows: NDArray[np.bool_]

    def of(self, rows: NDArray[Any]) -> "Members":
        """Return the same among some of the images."""
        return Members(self.attribute, self.value, self.rows[rows])


class Slices(Frozen):
    """The slices with enough images to be judged.

    Attributes:
        rows: the worst first.
        interval: of the lowest accuracy, given that all were looked at; None without slices.
    """

    rows: tuple[Slice, ...]
    interval: Interval | None = None

    @property
    def worst(self) -> Slice | None:
        """The slice with the lowest accuracy."""
        return self.rows[0] if self.rows else None


def members(splits: Splits) -> tuple[Members, ...]:
    """Return the slices of the test split: every image is in one of each attribute, if known."""
    return tuple(_members(attributes(splits)))


def slices(right: Hits, members: Sequence[Members]) -> Slices:
    """Return the accuracy on every slice that has at least `FEWEST_IMAGES`.

    Args:
        right: (n,) whether each image is classified correctly.
        members: which images are in each slice.
    """
    judged = [(each, right[each.rows]) for each in members if each.rows.sum() >= FEWEST_IMAGES]
    if not judged:
        return Slices(rows=())
    rows = []
    for each, hits in judged:
        low, high = share_interval(hits)
        row = Slice(
            attribute=each.attribute,
            value=each.value,
            images=len(hits),
            accuracy=float(hits.mean()),
            low=low,
            high=high,
        )
        rows.append(row)
    rows.sort(key=lambda row: (row.accuracy, -row.images))
    return Slices(rows=tuple(rows), interval=lowest_interval([hits for _, hits in judged]))


def _members(found: Mapping[str, Values]) -> Iterator[Members]:
    for attribute, values in found.items():
        parts = list(_thirds(values) if _is_continuous(values) else _each(values))
        # An attribute that all images share slices nothing.
        if len(parts) > 1:
            yield from (Members(attribute, value, rows) for value, rows in parts)


def _is_continuous(values: Values) -> bool:
    return values.dtype.kind == "f" and len(np.unique(values)) > MOST_VALUES


def _thirds(values: Values) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the thirds of numbers; equal numbers are in one, so that they may differ in size."""
    low, high = np.nanquantile(values, [1 / 3, 2 / 3])
    parts = {
        f"lowest third, up to {low:.4g}": values <= low,
        "middle third": (values > low) & (values <= high),
        f"highest third, over {high:.4g}": values > high,
    }
    yield from ((name, rows) for name, rows in parts.items() if rows.any())


def _each(values: Values) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield every value that has enough images; what is empty or not a number is no value."""
    different, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    for number in np.flatnonzero(counts >= FEWEST_IMAGES).tolist():
        value = different[number]
        if value != "" and value == value:
            name = f"{value:g}" if values.dtype.kind == "f" else str(value)
            yield name, numbers == number
