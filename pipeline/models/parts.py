"""The parts of a model that `build` made."""

import keras

from pipeline.models.backbones.layer import FEATURES


def core(model: keras.Model) -> keras.Model:
    """Return the part of a model that is trained: the model without test-time augmentation."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return nested[0] if nested else model


def has_backbone(model: keras.Model) -> bool:
    """Whether a model begins with a backbone; its head alone does not."""
    return any(layer.name == FEATURES for layer in model.layers)


def backbone_and_head(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a model at the features of its backbone; both parts share its layers and weights.

    Args:
        model: the result of `build`, of a recipe that begins with a backbone.

    Returns:
        The backbone, from `uint8` images to features (n, d), and the head, from features to
        probabilities (n, num_classes).
    """
    single = core(model)
    names = [layer.name for layer in single.layers]
    features = single.get_layer(FEATURES).output
    head = keras.Sequential(
        [keras.Input(features.shape[1:]), *single.layers[names.index(FEATURES) + 1 :]], name="head"
    )
    return keras.Model(single.input, features, name="backbone"), head
