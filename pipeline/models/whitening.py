"""A first convolution that is computed from the training images: it decorrelates patches."""

import keras
import numpy as np

from pipeline.artifacts.datasets import Images, Vectors
from pipeline.errors import TrainingError

IMAGES_TO_LOOK_AT = 1_000
# Added to the variances of patches: the smallest ones are noise, which must not be amplified.
EPSILON = 5e-4


def whiten(convolution: keras.layers.Conv2D, x_train: Images | Vectors) -> None:
    """Set the kernels of the first convolution, and its bias, which subtracts the mean.

    The kernels are the eigenvectors of the covariance of the patches, the largest first, each
    divided by its standard deviation; the second half is the negative of the first.

    Args:
        convolution: the layer; its inputs are images scaled to [0, 1].
        x_train: the training images, `uint8`.

    Raises:
        TrainingError: the layer has more filters than there are kernels, or an odd number.
    """
    size, _, channels, filters = convolution.kernel.shape
    most = 2 * size * size * channels
    if filters % 2 or filters > most:
        raise TrainingError(
            f"a whitening convolution of {size} by {size} on {channels} channels has an even "
            f"number of filters up to {most}; received {filters}"
        )
    some: Vectors = np.asarray(x_train[:IMAGES_TO_LOOK_AT], np.float32)
    images = some / np.float32(255)
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * channels)
    mean = patches.mean(axis=0, dtype=np.float64)
    variances, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    largest = np.argsort(variances)[::-1][: filters // 2]
    half = vectors[:, largest] / np.sqrt(variances[largest] + EPSILON)
    kernels = np.concatenate([half, -half], axis=1)
    convolution.kernel.assign(kernels.reshape(size, size, channels, filters))
    if convolution.use_bias:
        convolution.bias.assign(-mean @ kernels)
