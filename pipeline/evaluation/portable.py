"""A trained model as a LiteRT file, which is asked without TensorFlow."""

import hashlib
import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.record import Record
from pipeline.errors import ArtifactError
from pipeline.evaluation.latency import Latency, latency
from pipeline.evaluation.quiet import quiet_stderr

# What is computed of a batch stays in the cache; of large images few are asked about at once.
IMAGES_PER_BATCH = 128
VALUES_PER_BATCH = 2**19


class PortableRecord(Record):
    """`portable.json`: which model the LiteRT file beside it is, and how it was checked.

    Attributes:
        sha256: of the LiteRT file.
        model_sha256: of the Keras file that it was made from.
        images: how many test images both were asked about.
        difference: the largest one between two probabilities.
    """

    sha256: str
    model_sha256: str
    images: int
    difference: float


def usable_cores() -> int:
    """Return how many cores this process may use; models are served elsewhere than on Linux too."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class PortableModel:
    """A LiteRT model for batches of any size; one thread at a time may ask it."""

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        """Read a model.

        Args:
            content: of the LiteRT file.
            threads: by default one for each core that this process may use.

        Raises:
            ValueError: the bytes are no LiteRT model.
        """
        threads = threads or usable_cores()
        with quiet_stderr():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            # Packs the weights, once; another batch size costs nothing later.
            self._interpreter.allocate_tensors()
        (images,), (answers,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        self.image_shape: tuple[int, ...] = tuple(map(int, images["shape"][1:]))
        self.batch_size = min(
            IMAGES_PER_BATCH, max(1, VALUES_PER_BATCH // int(np.prod(self.image_shape)))
        )
        self._input, self._output = images["index"], answers["index"]
        self._size = 1

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return the probabilities of `uint8` images: (n, num_classes)."""
        size = self.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self._ask(batch) for batch in batches])

    def latency(self) -> Latency:
        """Measure how long it takes to answer."""
        return latency(self._ask, self.image_shape, self.batch_size)

    def _ask(self, images: Images) -> NDArray[np.float32]:
        if len(images) != self._size:
            self._size = len(images)
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(images))
        self._interpreter.invoke()
        answers: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return answers


def load_portable(trained: TrainedModel) -> PortableModel:
    """Load the LiteRT file of a model, after its bytes were checked and not before.

    Raises:
        ArtifactError: it is missing, of another model, not what was checked, or does not load.
    """
    file, content = trained.portable, read_checked(trained)
    try:
        return PortableModel(content)
    except ValueError as error:
        raise ArtifactError(f"cannot load {file}: {' '.join(str(error).split())}") from error


def read_checked(trained: TrainedModel) -> bytes:
    """Return the bytes of a model's LiteRT file.

    Raises:
        ArtifactError: it is missing, of another model, or not what was checked.
    """
    run, file = trained.run, trained.portable
    make = f"make it, with dataset: {run.dataset} in params.yaml: dvc repro evaluate@{run.model}"
    if not file.exists() or not trained.portable_record.exists():
        raise ArtifactError(
            f"{trained.path} has no {file.name} with its {trained.portable_record.name}: the model "
            f"was not evaluated, or by an older version; {make}"
        )
    record = PortableRecord.load(trained.portable_record)
    if record.model_sha256 != run.model_sha256:
        raise ArtifactError(
            f"{file} was made from a model with sha256 {record.model_sha256}; that of the trained "
            f"model is {run.model_sha256}; {make}"
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise ArtifactError(
            f"{file} has sha256 {found}; that of the one that was checked is {record.sha256}; "
            f"{make}"
        )
    return content
