"""Reasons to stop a training: unusable data, a loss that is not finite, a class never predicted."""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels, Vectors
from pipeline.errors import TrainingError

# With fewer validation images of a class, all of them may be misclassified by chance.
MIN_SUPPORT = 20


def check_arrays(
    split: str,
    x: Images | Vectors,
    y: Labels,
    image_shape: tuple[int, ...],
    class_names: tuple[str, ...],
    dtype: str = "uint8",
) -> None:
    """Refuse arrays that do not fit the model, which takes this shape and type.

    Raises:
        TrainingError: they are empty, of another shape or type, or a label is out of range.
    """
    if not len(x):
        raise TrainingError(f"the {split} split has no images; at least one is needed")
    if x.dtype != np.dtype(dtype) or x.shape[1:] != tuple(image_shape):
        raise TrainingError(
            f"the {split} images are {x.dtype} {x.shape[1:]}; the model takes {dtype} {image_shape}"
        )
    if y.shape != (len(x),):
        raise TrainingError(f"the {split} split has {len(x)} images but labels of shape {y.shape}")
    wrong = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(wrong):
        raise TrainingError(
            f"label {y[wrong[0]]} of {split} image {wrong[0]} is out of range; "
            f"allowed: 0 to {len(class_names) - 1}; {len(wrong)} labels are wrong"
        )


def check_every_class_has_images(y_train: Labels, class_names: tuple[str, ...]) -> None:
    """Refuse a training split that lacks a class.

    Raises:
        TrainingError: the message names the classes.
    """
    counts = np.bincount(y_train, minlength=len(class_names))
    absent = _names(counts == 0, class_names)
    if absent:
        raise TrainingError(
            f"no training image of {absent}: add images, or remove the class from the dataset"
        )


def check_finite(loss: float, where: str, learning_rate: float) -> None:
    """Refuse to go on with a loss that is not finite.

    Raises:
        TrainingError: the message says where it happened, and what to try.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in {where} at learning rate {learning_rate:.3g}: "
            "lower optimizer.learning_rate in the recipe, or let the schedule warm up"
        )


def check_every_class_is_predicted(
    predicted: NDArray[np.int64], y_val: Labels, class_names: tuple[str, ...]
) -> None:
    """Refuse a trained model that never predicts a class of which validation has many images.

    Only the weights that are kept are checked, not each epoch: early in training a model often
    misses a class for a while. Such a model may have a decent accuracy, which hides the problem.

    Args:
        predicted: how often each class was predicted on the validation split.
        y_val: the labels there; classes with fewer than `MIN_SUPPORT` images are not checked.
        class_names: names, in the order of the labels.

    Raises:
        TrainingError: the message names the classes.
    """
    support = np.bincount(y_val, minlength=len(class_names))
    lost = _names((predicted == 0) & (support >= MIN_SUPPORT), class_names)
    if lost:
        raise TrainingError(
            f"the trained model never predicts {lost} in {len(y_val)} validation images: "
            "train longer, lower optimizer.learning_rate, or check the labels"
        )


def _names(marked: NDArray[np.bool_], class_names: tuple[str, ...]) -> str:
    """Join the names of the marked classes."""
    return ", ".join(name for name, mark in zip(class_names, marked, strict=True) if mark)
