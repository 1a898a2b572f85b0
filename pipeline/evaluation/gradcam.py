"""Where a convolutional model looks: Grad-CAM (Selvaraju et al., 2017) of some test images."""

from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels, Pixels
from pipeline.evaluation.figures import caption, draw_images
from pipeline.evaluation.predictions import Predictions
from pipeline.models.backbones.layer import FEATURES
from pipeline.models.parts import core

Maps = NDArray[np.float32]  # (n, height, width), 0 to 1

COLUMNS = 9
# Smaller images are drawn with larger pixels, so that a heat map is smooth on them.
SMALLEST_SIDE = 64
# Of the colour where a map is 1; the rest is the image.
STRONGEST = 0.6


def draw_gradcam(
    path: Path,
    model: keras.Model,
    images: Images,
    predictions: Predictions,
) -> bool:
    """Draw heat maps over images that the model misclassifies, and below over correct ones.

    In both rows, every class comes once before one comes twice, and confident predictions first.

    Args:
        path: the PNG file; an old one is removed if the model has no convolution.
        model: a model that `pipeline.models.build` made.
        images: (n, height, width, channels) of the test split.
        predictions: the answers of the model for these images.

    Returns:
        Whether it was drawn: only the output of a convolution has a place in the image.
    """
    model = core(model)
    layer = last_feature_map(model)
    if layer is None:
        path.unlink(missing_ok=True)
        return False
    tiles, captions = [], []
    for wanted in (~predictions.right, predictions.right):
        rows = choose(wanted, predictions.y, predictions.confidence)
        if not len(rows):
            continue
        chosen = np.asarray(images[rows])
        maps = heat_maps(model, layer, chosen, predictions.predicted[rows])
        tiles.append(_fill(overlay(chosen, maps)))
        captions += [caption(predictions, row) for row in rows]
        captions += [""] * (COLUMNS - len(rows))
    draw_images(path, np.concatenate(tiles), captions, columns=COLUMNS)
    return True


def last_feature_map(model: keras.Model) -> keras.layers.Layer | None:
    """Return the layer with the feature maps of the last convolution; None if there is none.

    That is the activation after it, where it is a layer of its own: batch norm shifts the output
    of a linear convolution, so that output alone says little about evidence. Of a backbone it is
    the layer whose places the features are averaged over.
    """
    names = [at.name for at in model.layers]
    if FEATURES in names:
        return model.layers[names.index(FEATURES) - 1]
    convolutions = [n for n, at in enumerate(model.layers) if isinstance(at, keras.layers.Conv2D)]
    if not convolutions:
        return None
    kinds = (keras.layers.Conv2D, keras.layers.Activation, keras.layers.ReLU)
    after = model.layers[convolutions[-1] :]
    return [at for at in after if isinstance(at, kinds) and len(at.output.shape) == 4][-1]


def heat_maps(
    model: keras.Model, layer: keras.layers.Layer, images: Images, labels: Labels
) -> Maps:
    """Return where the evidence for a class is, in the resolution of a layer's feature maps.

    Args:
        model: its last layer is a dense softmax.
        layer: one of its layers, with feature maps as output.
        images: (n, height, width, channels).
        labels: (n,), the class to explain for each image.

    Returns:
        (n, map height, map width); the largest value of each is 1, or 0 where there is no
        evidence for the class.
    """
    last = model.layers[-1]
    # Pixels are integers, which have no gradient, so the tape watches from the feature maps on.
    features = keras.Model(model.input, layer.output)(images, training=False)
    rest = keras.Model(layer.output, last.input)
    with tf.GradientTape() as tape:
        tape.watch(features)
        # The score before the softmax, as in the paper: a saturated softmax has no gradient.
        weights = tf.gather(tf.transpose(last.kernel), labels)
        scores = tf.reduce_sum(tf.cast(rest(features, training=False), tf.float32) * weights, 1)
    gradients = tf.cast(tape.gradient(scores, features), tf.float32).numpy()
    importance = gradients.mean(axis=(1, 2), keepdims=True)
    features = tf.cast(features, tf.float32).numpy()
    maps = np.maximum((features * importance).sum(axis=-1), 0)
    peak = maps.max(axis=(1, 2), keepdims=True)
    result: Maps = np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)
    return result


def choose(wanted: NDArray[np.bool_], y: Labels, confidence: NDArray[np.float32]) -> Labels:
    """Choose up to `COLUMNS` images: the most confident one of each class, then the second, ….

    Args:
        wanted: (n,) whether an image may be chosen.
        y: (n,) true labels.
        confidence: (n,).

    Returns:
        Their indices.
    """
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    seen: dict[int, int] = {}
    turn = np.empty(len(rows), np.int64)
    for place, label in enumerate(y[rows].tolist()):
        turn[place] = seen[label] = seen.get(label, -1) + 1
    return rows[np.argsort(turn, kind="stable")[:COLUMNS]]


def overlay(images: Pixels, maps: Maps) -> Pixels:
    """Blend heat maps into images: the hotter, the less of the image shows.

    Args:
        images: (n, height, width, 1 or 3).
        maps: (n, map height, map width).

    Returns:
        (n, height, width, 3), in whole multiples of the height and width of the images.
    """
    larger = -(-SMALLEST_SIDE // min(SMALLEST_SIDE, *images.shape[1:3]))
    pixels = images.repeat(larger, axis=1).repeat(larger, axis=2)
    colours = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).astype(np.float32)
    heat = tf.image.resize(maps[..., None], pixels.shape[1:3], method="bilinear").numpy()
    hot = 255 * mpl.colormaps["jet"](heat[..., 0])[..., :3]
    share = STRONGEST * heat
    mixed: Pixels = ((1 - share) * colours + share * hot).round().astype(np.uint8)
    return mixed


def _fill(tiles: Pixels) -> Pixels:
    """Add white tiles until the row is full."""
    return np.pad(tiles, [(0, COLUMNS - len(tiles)), (0, 0), (0, 0), (0, 0)], constant_values=255)
