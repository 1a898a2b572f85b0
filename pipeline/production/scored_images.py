"""The test images that versions are scored on: those that none of them has seen."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels
from pipeline.artifacts.record import Frozen


class ScoredImages(Frozen):
    """How many test images a decision rests on.

    Attributes:
        test: the images of the test split that is here.
        left: those that no version has seen, on which they are scored.
        seen: those that the candidate was trained or validated on; None where it has no record.
        seen_by_incumbent: likewise; None as well where the incumbent is not scored.
        emptied: the classes of which there are test images, and none is left.
        compared: those that are left of classes that both know; None where both know all.
        asked: how often these images were asked, this time too: the median of the images; None
            where nothing is compared.
        fresh: those that were never asked about before.
    """

    test: int
    left: int
    seen: int | None
    seen_by_incumbent: int | None = None
    emptied: tuple[str, ...] = ()
    compared: int | None = None
    asked: int | None = None
    fresh: int | None = None

    @property
    def count(self) -> int:
        """How many images the comparison rests on, or the floors where there is none."""
        return self.left if self.compared is None else self.compared

    def compare(self, compared: int | None, times: NDArray[np.int64]) -> Self:
        """Return the same with how often the images on which both are compared were asked.

        Args:
            compared: the images of classes that both know; None where both know all.
            times: of each different image.
        """
        return self.model_copy(
            update={
                "compared": compared,
                "asked": int(np.quantile(times, 0.5, method="higher")),
                "fresh": int((times == 1).sum()),
            }
        )


def unseen(
    y: Labels,
    class_names: Sequence[str],
    new: NDArray[np.bool_] | None,
    old: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.bool_], ScoredImages]:
    """Leave out the test images that a version has seen.

    Args:
        y: (n,) the labels of the test split.
        class_names: in the order of the labels.
        new: which the candidate has seen; None where that is not known.
        old: which the incumbent has seen; None where that is not known, or it is not scored.

    Returns:
        Which images are left, (n,), and how many.
    """
    left = np.ones(len(y), np.bool_)
    for seen in (new, old):
        if seen is not None:
            left &= ~seen
    there, remain = (np.bincount(labels, minlength=len(class_names)) for labels in (y, y[left]))
    return left, ScoredImages(
        test=len(y),
        left=int(left.sum()),
        seen=None if new is None else int(new.sum()),
        seen_by_incumbent=None if old is None else int(old.sum()),
        emptied=tuple(np.array(class_names)[(there > 0) & (remain == 0)].tolist()),
    )
