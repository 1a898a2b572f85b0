"""Ask a registered version about the test images that are here, now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import load_litert, predict_on_all_cores, read_checked
from pipeline.evaluation.predictions import Probabilities
from pipeline.images import as_base64_png
from pipeline.production.comparable import differing_images
from pipeline.registry import model_files
from pipeline.registry.passport import Example, Passport
from pipeline.registry.versions import Registered
from pipeline.tracking.store import reaching

# Enough to notice a model that is not the one that was evaluated.
IMAGES_TO_REPRODUCE = 512
# Large images are fewer: the answers are those of a file whose sha256 is checked, to all of them.
FEWEST_TO_REPRODUCE, VALUES_TO_REPRODUCE = 64, 2**23


class OtherImages(ArtifactError):
    """A version takes other images than those that are here."""


@dataclass(frozen=True)
class Asked:
    """A version that was asked about all test images.

    Attributes:
        passport: None where it was registered without.
        class_names: those that it knows, in the order of its probabilities.
        probabilities: (n, its classes).
        seen: (n,) which of the images it was trained or validated on; None where it has no record.
    """

    version: Registered
    passport: Passport | None
    class_names: tuple[str, ...]
    probabilities: Probabilities
    seen: NDArray[np.bool_] | None


def ask(version: Registered, passport: Passport | None, splits: Splits) -> Asked:
    """Ask a version about all test images.

    Raises:
        OtherImages: it takes others.
        ArtifactError: its files are not what was registered.
        TrackingError: the store cannot be reached.
    """
    trained = TrainedModel(model_files.fetch(version))
    if text := differing_images(trained.run, splits.info):
        raise OtherImages(text)
    images = model_files.read_images(version)
    return Asked(
        version=version,
        passport=passport,
        class_names=trained.run.class_names,
        probabilities=_probabilities(trained, splits),
        seen=None if images is None else images.has_seen(splits.contents("test")),
    )


def _probabilities(trained: TrainedModel, splits: Splits) -> Probabilities:
    return (_ask_litert if trained.litert.exists() else _ask_keras)(trained, splits)


def _ask_litert(trained: TrainedModel, splits: Splits) -> Probabilities:
    if (found := sha256(trained.model)) != trained.run.model_sha256:
        raise ArtifactError(
            f"{trained.model} has sha256 {found}; that of the trained model is "
            f"{trained.run.model_sha256}"
        )
    load_litert(trained)  # says what is wrong with a file that does not load
    return predict_on_all_cores(read_checked(trained), splits.x("test"))


def _ask_keras(trained: TrainedModel, splits: Splits) -> Probabilities:
    """Ask a version from before there were LiteRT files; no other needs TensorFlow."""
    with quiet_stderr():
        from pipeline.evaluation.scoring import Scorer, load_checked
    model = load_checked(trained.model, trained.run.model_sha256)
    return Scorer(model).probabilities(splits.x("test"))


def max_difference(
    uri: str, splits: Splits, expected: Probabilities, examples: Sequence[Example] = ()
) -> float:
    """Return how far a model's probabilities, asked as callers ask it, are from those expected.

    Args:
        uri: the URI of a logged or registered model.
        splits: images of `test`, evenly spaced, are asked about: as pixels, the first as a file
            too.
        expected: probabilities of the test split.
        examples: what Keras answered for these when the model was evaluated is expected as well.

    Raises:
        TrackingError: it does not load or does not answer.
    """
    served: Any = model_files.load(uri)
    rows = _rows_to_reproduce(splits.x("test").shape)
    images = np.asarray(splits.x("test")[rows])
    asked = [as_base64_png(images[0]), *images, *(example.png for example in examples)]
    with reaching(f"ask {uri}"):
        answer = served.predict(pd.DataFrame({"image": asked}))
    found = np.stack(answer["probabilities"].to_list())
    wanted = [expected[0], *expected[rows], *(row.probabilities for row in examples)]
    return float(np.abs(found - np.stack(wanted)).max())


def _rows_to_reproduce(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return which images are asked about again: the first, the last, and some between."""
    most = VALUES_TO_REPRODUCE // int(np.prod(shape[1:]))
    size = min(shape[0], IMAGES_TO_REPRODUCE, max(FEWEST_TO_REPRODUCE, most))
    return np.linspace(0, shape[0] - 1, size).astype(np.int64)
