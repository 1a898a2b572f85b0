"""How often test images were asked which of two versions is better: each time proves less."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Contents
from pipeline.registry.ledger import Question
from pipeline.registry.ledger_run import LedgerRun


def ask(ledger: LedgerRun, candidate: int, incumbent: int, contents: Contents) -> NDArray[np.int64]:
    """Record a question, and return of each image how often it was asked so far, this time too.

    Asking the same two versions again gives the same answer, and is no new question.

    Args:
        ledger: of the registered model.
        candidate: its version.
        incumbent: the version in production.
        contents: the images on which they are compared.

    Returns:
        (n,), one number for each different image.

    Raises:
        TrackingError: the store cannot be reached, or does not let this account write.
    """
    images = np.unique(contents)
    digest = hashlib.sha256(images.tobytes()).hexdigest()[:32]
    asked, question = {*ledger.questions()}, Question(candidate, incumbent, digest)
    if question not in asked:
        new = digest not in {row.images for row in asked}
        ledger.record_question(question, images, new)
    asked.add(question)
    return times_asked(images, asked, {row.images: ledger.images_of(row.images) for row in asked})


def times_asked(
    images: Contents, asked: Iterable[Question], sets: Mapping[str, Contents]
) -> NDArray[np.int64]:
    """Return how many pairs of versions each image was asked about: (n,).

    Args:
        images: (n,).
        asked: all questions.
        sets: the images of each, by digest.
    """
    among = {digest: np.isin(images, some) for digest, some in sets.items()}
    pairs: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for new, old, digest in asked:
        before = pairs.get((new, old), np.zeros(len(images), np.bool_))
        pairs[new, old] = before | among[digest]
    counts: NDArray[np.int64] = np.sum([*pairs.values()], axis=0, dtype=np.int64)
    return counts
