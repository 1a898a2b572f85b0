"""A LiteRT file in whole numbers of 8 bits: smaller, and faster where the hardware has them."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np

from pipeline.artifacts.datasets import Images
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.errors import ArtifactError
from pipeline.evaluation.litert import LiteRTModel
from pipeline.models.recipes import VIEWS_LAYER
from pipeline.parallel import cores

# Enough to see the range of every activation; more change it little.
CALIBRATION_IMAGES = 200


def quantize(content: bytes, images: Images, seed: int = 0) -> bytes:
    """Return a LiteRT file with weights and activations of 8 bits.

    The images stay `uint8` and the probabilities `float32`: the softmax, and the mean over views of
    test-time augmentation, are computed in `float32`, as 256 steps would round small
    probabilities to 0.

    Args:
        content: the bytes of a float LiteRT file.
        images: of the training split; a sample of them shows which values activations have.
        seed: of the sample.

    Raises:
        ArtifactError: the file has an operation that cannot be quantized, or a number is not
            finite.
    """
    count = min(CALIBRATION_IMAGES, len(images))
    rows = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    sample = np.asarray(images[rows])
    try:
        with quiet_stderr(), _silent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that its debugging takes memory
            made = _quantize(content, sample)
            if not np.isfinite(LiteRTModel(made).probabilities(sample)).all():
                raise ValueError("its probabilities are not finite")
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ArtifactError(f"the model cannot be quantized to 8 bits: {reason}") from error
    return made


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard a progress bar and a report."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _quantize(content: bytes, sample: Images) -> bytes:
    # Takes seconds to import.
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager

    signature, name = LiteRTModel(content).signature
    recipe = RecipeManager()
    recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
    kept = (
        (".*", TFLOperationName.SOFTMAX),
        (".*", TFLOperationName.OUTPUT),
        # The mean of the views; the last step of it has the name of the output: the second one in
        # files of earlier releases.
        (
            rf".*/{VIEWS_LAYER}(_\d+)?/.*|Identity.*|StatefulPartitionedCall.*",
            TFLOperationName.ALL_SUPPORTED,
        ),
    )
    for names, operation in kept:
        recipe.add_quantization_config(names, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    quantizer = Quantizer(bytearray(content), recipe.get_quantization_recipe())
    # One image at a time: the range of a batch would be kept as one value of it.
    fed = {signature: [{name: sample[row : row + 1]} for row in range(len(sample))]}
    measured = quantizer.calibrate(fed, num_threads=cores())
    return bytes(quantizer.quantize(measured).quantized_model)
