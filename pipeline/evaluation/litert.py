"""A trained model as a LiteRT file, which runs without TensorFlow."""

import hashlib
import threading
from collections.abc import Callable

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.models import TrainedModel
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.artifacts.record import Record
from pipeline.errors import ArtifactError
from pipeline.evaluation.latency import Latency, latency
from pipeline.parallel import cores, spread

# Small batches stay in the CPU cache, so large images go in smaller ones.
IMAGES_PER_BATCH = 128
VALUES_PER_BATCH = 2**19


class LiteRTRecord(Record):
    """`portable.json`: which model the LiteRT file beside it is, and how it was checked.

    Attributes:
        sha256: the sha256 of the LiteRT file.
        model_sha256: the sha256 of the Keras file that it was made from.
        images: how many test images both were compared on.
        difference: the largest difference between two probabilities.
    """

    sha256: str
    model_sha256: str
    images: int
    difference: float


class LiteRTModel:
    """A LiteRT model for batches of any size, used by one thread at a time."""

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        """Read a model.

        Args:
            content: the bytes of the LiteRT file.
            threads: by default one for each core that this process may use.

        Raises:
            ValueError: the bytes are no LiteRT model.
        """
        threads = threads or cores()
        with quiet_stderr():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            # Packs the weights once; resizing the batch later costs nothing.
            self._interpreter.allocate_tensors()
        (images,) = self._interpreter.get_input_details()
        # A version with a guarantee answers with its features too.
        answers, *self._features = self._interpreter.get_output_details()
        self.image_shape: tuple[int, ...] = tuple(map(int, images["shape"][1:]))
        self.batch_size = min(
            IMAGES_PER_BATCH, max(1, VALUES_PER_BATCH // int(np.prod(self.image_shape)))
        )
        self._input, self._output = images["index"], answers["index"]
        self._size = 1

    @property
    def signature(self) -> tuple[str, str]:
        """The name of its signature, and what that calls the images."""
        ((name, signature),) = self._interpreter.get_signature_list().items()
        return name, signature["inputs"][0]

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return the probabilities of `uint8` images: (n, num_classes)."""
        size = self.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self._predict(batch) for batch in batches])

    def with_features(self, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return probabilities, and the vectors before the softmax layer: (n, size).

        Raises:
            ValueError: the file has no features.
        """
        (output,) = self._features
        size, found = self.batch_size, []
        for start in range(0, len(images), size):
            probabilities = self._predict(images[start : start + size])
            features = self._interpreter.get_tensor(output["index"])
            if features.dtype != np.float32:  # of an integer model
                scale, zero = output["quantization"]
                features = (features.astype(np.float32) - zero) * np.float32(scale)
            found.append((probabilities, features.reshape(len(probabilities), -1)))
        probabilities, features = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return probabilities, features

    def latency(self) -> Latency:
        """Measure how long it takes to predict."""
        return latency(self._predict, self.image_shape, self.batch_size)

    def _predict(self, images: Images) -> NDArray[np.float32]:
        if len(images) != self._size:
            self._size = len(images)
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(images))
        self._interpreter.invoke()
        answers: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return answers


def in_each_thread(content: bytes) -> Callable[[Images], NDArray[np.float32]]:
    """Return a function from images to probabilities that several threads may call at once.

    One interpreter for each thread is faster than one that uses all cores.
    """
    own = threading.local()

    def predict(images: Images) -> NDArray[np.float32]:
        if not hasattr(own, "model"):
            own.model = LiteRTModel(content, threads=1)
        model: LiteRTModel = own.model
        return model.probabilities(images)

    return predict


def predict_on_all_cores(content: bytes, images: Images) -> NDArray[np.float32]:
    """Return the probabilities of `uint8` images: (n, num_classes)."""
    size = LiteRTModel(content, threads=1).batch_size
    batches = (images[start : start + size] for start in range(0, len(images), size))
    return np.concatenate(list(spread(in_each_thread(content), batches)))


def load_litert(trained: TrainedModel) -> LiteRTModel:
    """Load the LiteRT file of a model, once its sha256 has been checked.

    Raises:
        ArtifactError: it is missing, of another model, not what was checked, or does not load.
    """
    file, content = trained.litert, read_checked(trained)
    try:
        return LiteRTModel(content)
    except ValueError as error:
        raise ArtifactError(f"cannot load {file}: {' '.join(str(error).split())}") from error


def read_checked(trained: TrainedModel) -> bytes:
    """Return the bytes of a model's LiteRT file.

    Raises:
        ArtifactError: it is missing, of another model, or not what was checked.
    """
    run, file = trained.run, trained.litert
    make = f"make it, with dataset: {run.dataset} in params.yaml: dvc repro evaluate@{run.model}"
    if not file.exists() or not trained.litert_record.exists():
        raise ArtifactError(
            f"{trained.path} has no {file.name} with its {trained.litert_record.name}: the model "
            f"was not evaluated, or only by an older version; {make}"
        )
    record = LiteRTRecord.load(trained.litert_record)
    if record.model_sha256 != run.model_sha256:
        raise ArtifactError(
            f"{file} was made from a model with sha256 {record.model_sha256}; the trained model "
            f"has {run.model_sha256}; {make}"
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != record.sha256:
        raise ArtifactError(
            f"{file} has sha256 {found}; the file that was checked had {record.sha256}; {make}"
        )
    return content
