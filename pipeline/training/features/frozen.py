"""What of a model is not trained: its features are computed once, and what follows is trained."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Vectors
from pipeline.models.parts import backbone_and_head
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.engine import Data
from pipeline.training.features.cache import FeatureCache, Keys
from pipeline.training.features.forward import Forward, engine, forward

# So many images lose their features where a training is killed while it computes them.
IMAGES_PER_PIECE = 1024
BYTES_AT_ONCE = 2**24

# Gets the number of images, and returns what is told how many more are done.
Watch = Callable[[int], None]


@dataclass(frozen=True)
class Features:
    """A training on features instead of images.

    Attributes:
        head: the part of the model that is trained; it shares its weights with the model.
        data: with features, `float32` (n, d), in the place of images.
        computed: how many images had no features in the cache.
        seconds: what that took, the cache included.
    """

    head: keras.Model
    data: Data
    computed: int
    seconds: float


def has_fixed_features(recipe: Recipe) -> bool:
    """Whether a recipe begins with a backbone that sees the same pixels in every epoch, frozen."""
    return recipe.backbone is not None and all(
        phase.trainable == "none" and phase.augmentation == Augmentation()
        for phase in recipe.phases
    )


def features_of(
    model: keras.Model,
    data: Data,
    on_progress: Watch,
    cache_of: Callable[[str, int], FeatureCache] = FeatureCache,
) -> Features:
    """Compute the features of the images of a training, or find them in the cache.

    Args:
        model: the result of `models.build.build`, of a recipe with fixed features.
        data: with images.
        on_progress: is told how many more images are done.
        cache_of: opens the cache of a network, given what tells it and the number of features.
    """
    start = time.perf_counter()
    network, head = backbone_and_head(model)
    known = cache_of(fingerprint(network), network.output_shape[-1])
    source = _Source(network, known, on_progress)
    with_features = replace(data, x_train=source.of(data.x_train), x_val=source.of(data.x_val))
    return Features(head, with_features, source.computed, time.perf_counter() - start)


def fingerprint(network: keras.Model) -> str:
    """Return what tells a network: its layers, its weights, and who computes it in what precision.

    The size of the images and how they are scaled are part of its layers.
    """
    digest = hashlib.sha256()
    for part in (engine(), network.compute_dtype, version("keras")):
        digest.update(f"{part}\0".encode())
    digest.update(json.dumps(network.get_config(), sort_keys=True, default=str).encode())
    for array in network.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


class _Source:
    """The features of images, from the cache or computed."""

    def __init__(self, network: keras.Model, known: FeatureCache, on_progress: Watch) -> None:
        self.network, self.known, self.on_progress = network, known, on_progress
        self.computed = 0
        self._forward: Forward | None = None

    def of(self, images: Images | Vectors) -> Vectors:
        keys = self._keys(images)
        vectors, found = self.known.find(keys)
        self.on_progress(int(found.sum()))
        # Each image once, also where the same pixels are there twice.
        missing, rows = np.unique(keys[~found], return_index=True)
        rows = np.flatnonzero(~found)[rows]
        for start in range(0, len(missing), IMAGES_PER_PIECE):
            piece = slice(start, start + IMAGES_PER_PIECE)
            self.known.add(missing[piece], self._compute(images, rows[piece], vectors))
        if len(missing):
            first = rows[np.searchsorted(missing, keys[~found])]
            vectors[~found] = vectors[first]
        self.on_progress(len(keys) - int(found.sum()) - len(missing))
        return vectors

    def _keys(self, images: Images | Vectors) -> Keys:
        keys = np.empty(len(images), np.uint64)
        for start in range(0, len(images), step := _images_at_once(images)):
            for number, image in enumerate(images[start : start + step], start):
                digest = hashlib.sha256(image.tobytes()).digest()
                keys[number] = int.from_bytes(digest[:8])
        return keys

    def _compute(
        self, images: Images | Vectors, rows: NDArray[np.intp], vectors: Vectors
    ) -> Vectors:
        """Compute the features of some images, and put them where they belong."""
        if self._forward is None:
            self._forward = forward(self.network, self.known.folder)
        for start in range(0, len(rows), step := _images_at_once(images)):
            some = np.sort(rows[start : start + step])
            vectors[some] = self._forward(np.ascontiguousarray(images[some]))
            self.computed += len(some)
            self.on_progress(len(some))
        return vectors[rows]


def _images_at_once(images: Images | Vectors) -> int:
    return max(1, BYTES_AT_ONCE // max(1, int(np.prod(images.shape[1:]))))
