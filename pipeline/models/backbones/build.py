"""Builds the network of a backbone with its weights, and says which of its layers are trained."""

import hashlib
import re
from importlib import import_module
from typing import Any

import keras
import numpy as np

from pipeline.errors import ArtifactError, TrainingError
from pipeline.models.backbones.backbones import BackboneKind
from pipeline.models.backbones.efficientnet_lite0 import arrays
from pipeline.models.backbones.fetch import fetch
from pipeline.models.backbones.layer import FEATURES, Backbone, Trainable, trained_layers
from pipeline.models.backbones.torch_file import read_torch
from pipeline.models.backbones.weights import Weights


def build(layer: Backbone, image_shape: tuple[int, int, int]) -> keras.Model:
    """Build a backbone alone, for features that are computed once.

    Args:
        layer: names the backbone.
        image_shape: height, width, 1 or 3 channels.

    Returns:
        A model: `uint8` images (n, height, width, channels) in, `float32` features (n, d) out.

    Raises:
        TrainingError: the backbone does not take such images.
        DownloadError: its weights are not to be had.
        ArtifactError: they are damaged.
    """
    images = keras.Input(image_shape, dtype="uint8", name="images")
    return keras.Model(images, extract(layer, images), name=layer.backbone)


def extract(layer: Backbone, images: Any) -> Any:
    """Add a backbone to a model.

    Args:
        layer: names the backbone.
        images: the model's input, `uint8` (n, height, width, channels).

    Returns:
        The features, (n, d). For the errors see `build`.
    """
    kind = layer.kind
    _check_shape(kind, images.shape[1:])
    x = images
    if images.shape[-1] == 1:
        x = keras.layers.Concatenate(name="rgb")([x, x, x])
    if kind.scale:
        x = keras.layers.Rescaling(*kind.scale, name="scaled")(x)
    network = architecture(kind)(
        **kind.settings,
        include_top=False,
        weights=None,
        input_tensor=x,
        input_shape=tuple(x.shape[1:]),
    )
    _load(network, kind.weights)
    _rename(network)
    for one in network.layers:
        if isinstance(one, keras.layers.Dropout):
            one.rate = 0.0
    set_trainable(network, layer.trainable)
    return keras.layers.GlobalAveragePooling2D(name=FEATURES)(network.output)


def architecture(kind: BackboneKind) -> Any:
    """Return the function that builds the network of a backbone."""
    module, _, name = kind.architecture.rpartition(".")
    return getattr(import_module(module), name)


def set_trainable(model: keras.Model, trainable: Trainable) -> None:
    """Choose which layers of a model's backbone are trained; batch norm never is.

    Args:
        model: with the layers of a backbone, up to `FEATURES` where it has more.
        trainable: as the layer of the recipe says.

    Raises:
        TrainingError: the backbone has fewer layers.
    """
    layers = layers_of(model)
    count = trained_layers(trainable)
    if count > len(layers) and trainable != "all":
        raise TrainingError(
            f"trainable is {trainable}, but the backbone has {len(layers)} layers; "
            f"allowed: none, last_1 to last_{len(layers)}, all"
        )
    first = len(layers) - count
    for number, layer in enumerate(layers):
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not norm


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model's backbone, without the input and what prepares it."""
    names = [layer.name for layer in model.layers]
    end = names.index(FEATURES) if FEATURES in names else len(names)
    return [layer for layer in model.layers[:end] if layer.name not in ("images", "rgb", "scaled")]


def sha256_of(model: keras.Model) -> str:
    """Return the sha256 of the arrays of a model, in its order."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.asarray(array).astype("<f4").tobytes())
    return digest.hexdigest()


def _check_shape(kind: BackboneKind, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    if min(height, width) < kind.smallest or channels not in (1, 3):
        raise TrainingError(
            f"the backbone {kind.name} takes images of at least {kind.smallest} by "
            f"{kind.smallest} pixels with 1 or 3 channels; received {height} by {width} with "
            f"{channels}: set image_size of the dataset in params.yaml, "
            f"its weights were trained on [{kind.side}, {kind.side}]"
        )


def _load(network: keras.Model, weights: Weights) -> None:
    """Load the weights.

    Raises:
        ArtifactError: they do not fit the network, or are not those that were asked for.
    """
    path = fetch(weights)
    try:
        if weights.package:
            network.set_weights(arrays(read_torch(path)))
        else:
            network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ArtifactError(f"{path} does not have the weights asked for: {reason}") from error
    if weights.sha256 and (found := sha256_of(network)) != weights.sha256:
        raise ArtifactError(
            f"the arrays in {path} have the sha256 {found}, not {weights.sha256}: "
            f"remove the file; the official one is at {weights.address}"
        )


def _rename(network: keras.Model) -> None:
    """Name layers by their place that Keras has named by how many it made before in this process.

    So equal recipes give equal models, and no name is that of a layer of the recipe.
    """
    number = 0
    for operation in network.operations:
        kind = type(operation).__name__.lower()
        if re.sub(r"_\d+$", "", operation.name).replace("_", "") == kind:
            number += 1
            operation.name = f"backbone_{kind}_{number}"
