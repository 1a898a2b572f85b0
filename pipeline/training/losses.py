"""The loss of each image, and what it weighs in the training."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pipeline.artifacts.datasets import Labels
from pipeline.errors import TrainingError, did_you_mean
from pipeline.models.losses import ClassWeights
from pipeline.models.recipes import Recipe


def loss_of(recipe: Recipe, num_classes: int) -> Callable[[Any, Any], Any]:
    """Return the loss of each image, from labels and probabilities.

    Labels are numbers of classes (n,), or mixed: probabilities (n, num_classes).
    """
    chosen, sparse = recipe.loss, keras.losses.sparse_categorical_crossentropy
    settings: dict[str, Any] = {"label_smoothing": recipe.label_smoothing}
    of_one_hot = keras.losses.categorical_crossentropy
    if chosen.name == "focal":
        of_one_hot = keras.losses.categorical_focal_crossentropy
        settings |= {"gamma": chosen.gamma, "alpha": chosen.alpha}

    def loss(labels: Any, probabilities: Any) -> Any:
        mixed = len(labels.shape) == 2
        if not mixed and chosen.name == "sparse_categorical_crossentropy":
            return sparse(labels, probabilities)
        targets = labels if mixed else keras.ops.one_hot(labels, num_classes)
        return of_one_hot(targets, probabilities, **settings)

    return loss


def weights_of(
    class_weights: ClassWeights, y_train: Labels, class_names: tuple[str, ...]
) -> tuple[float, ...] | None:
    """Return the weight of each class in the loss; None if all weigh the same.

    Args:
        class_weights: as the recipe says it.
        y_train: the labels of the training images; every class has one.
        class_names: names, in the order of the labels.

    Raises:
        TrainingError: there is no class of that name.
    """
    if class_weights is None:
        return None
    if class_weights == "balanced":
        counts = np.bincount(y_train, minlength=len(class_names))
        return tuple((len(y_train) / (len(class_names) * counts)).tolist())
    for name in class_weights:
        if name not in class_names:
            raise TrainingError(
                f"class_weights has a weight for {name!r}, which is no class of this dataset; "
                f"allowed: {', '.join(class_names)}" + did_you_mean(name, list(class_names))
            )
    return tuple(class_weights.get(name, 1.0) for name in class_names)


def weighing(class_weights: tuple[float, ...] | None) -> Callable[[Any, Any], Any]:
    """Return a function that weighs the losses of images by their labels, mixed ones too."""
    if class_weights is None:
        return lambda losses, labels: losses
    table = np.array(class_weights, np.float32)

    def weigh(losses: Any, labels: Any) -> Any:
        mixed = len(labels.shape) == 2
        return losses * (
            keras.ops.sum(labels * table, 1) if mixed else keras.ops.take(table, labels)
        )

    return weigh
