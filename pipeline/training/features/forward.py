"""Forward passes of a network that is not trained: on CPU by LiteRT, else by Keras.

LiteRT takes half of TensorFlow's time, and the features of an image do not depend on the images
beside it, so that those from the cache and those that are computed are equal to the last bit.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Pixels, Vectors
from pipeline.artifacts.files import atomic
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.errors import ArtifactError
from pipeline.models.litert import to_litert, traced
from pipeline.parallel import cores
from pipeline.training.device import uses_gpu

Forward = Callable[[Pixels], Vectors]
IMAGES_AT_ONCE = 32


def engine() -> str:
    """Return who computes the features in this process."""
    backend = keras.backend.backend()
    return "litert" if backend == "tensorflow" and not uses_gpu() else backend


def forward(network: keras.Model, folder: Path) -> Forward:
    """Return a function from images to features.

    Args:
        network: takes `uint8` images.
        folder: keeps what LiteRT is given, which takes a second to make.
    """
    if engine() != "litert":
        return partial(_with_keras, network)
    content = _litert(network, folder)
    interpreters = [_interpreter(content) for _ in range(cores())]
    threads = ThreadPoolExecutor(len(interpreters), thread_name_prefix="features")

    def run(images: Pixels) -> Vectors:
        # One thread for each interpreter is faster than all threads for one.
        parts = np.array_split(images, len(interpreters))
        return np.concatenate(list(threads.map(_with_litert, interpreters, parts)))

    return run


def _with_keras(network: keras.Model, images: Pixels) -> Vectors:
    """Compute features, always in batches of one size, for which the network is compiled."""
    size, found = IMAGES_AT_ONCE, []
    for start in range(0, len(images), size):
        some = images[start : start + size]
        padded = np.pad(some, [(0, size - len(some)), *[(0, 0)] * (some.ndim - 1)])
        found.append(np.asarray(network.predict_on_batch(padded))[: len(some)])
    return np.concatenate(found)


def _with_litert(interpreter: Any, images: Pixels) -> Vectors:
    (given,), (asked,) = interpreter.get_input_details(), interpreter.get_output_details()
    found: NDArray[np.float32] = np.empty((len(images), *asked["shape"][1:]), np.float32)
    for number in range(len(images)):
        interpreter.set_tensor(given["index"], images[number : number + 1])
        interpreter.invoke()
        found[number] = interpreter.get_tensor(asked["index"])[0]
    return found


def _interpreter(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _litert(network: keras.Model, folder: Path) -> bytes:
    """Return the network as a LiteRT file: the one in the folder, unless it is damaged."""
    for kept in folder.glob("[!.]*.tflite"):
        with suppress(OSError):
            content = kept.read_bytes()
            if hashlib.sha256(content).hexdigest() == kept.stem:
                os.utime(kept)
                return content
            kept.unlink()
    content = to_litert(traced(network))
    # Next time it is not made again; where it cannot be kept, it is.
    kept = folder / f"{hashlib.sha256(content).hexdigest()}.tflite"
    with suppress(ArtifactError), atomic(kept) as part:
        part.write_bytes(content)
    return content
