"""Reasons to stop a training: data that cannot teach, a loss that is not finite, a lost class."""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Images, Labels
from pipeline.errors import TrainingError

# Fewer validation images of a class than this may all be missed by chance.
VANISHED_SUPPORT = 20


def check_arrays(
    split: str, x: Images, y: Labels, image_shape: tuple[int, ...], class_names: tuple[str, ...]
) -> None:
    """Refuse arrays that do not fit the model.

    Raises:
        TrainingError: they are empty, of another shape or type, or a label is out of range.
    """
    if not len(x):
        raise TrainingError(f"the {split} split has no images; at least one is needed")
    if x.dtype != np.uint8 or x.shape[1:] != tuple(image_shape):
        raise TrainingError(
            f"the {split} images are {x.dtype} {x.shape[1:]}; the model takes uint8 {image_shape}"
        )
    if y.shape != (len(x),):
        raise TrainingError(f"the {split} split has {len(x)} images but labels of shape {y.shape}")
    wrong = np.flatnonzero((y < 0) | (y >= len(class_names)))
    if len(wrong):
        raise TrainingError(
            f"label {y[wrong[0]]} of {split} image {wrong[0]} is out of range; "
            f"allowed: 0 to {len(class_names) - 1}; {len(wrong)} labels are wrong"
        )


def check_every_class_is_taught(y_train: Labels, class_names: tuple[str, ...]) -> None:
    """Refuse a training split in which a class does not occur.

    Raises:
        TrainingError: it names the classes.
    """
    counts = np.bincount(y_train, minlength=len(class_names))
    absent = _names(counts == 0, class_names)
    if absent:
        raise TrainingError(
            f"no training image of {absent}: add images, or remove the class from the dataset"
        )


def check_finite(loss: float, where: str, learning_rate: float) -> None:
    """Refuse to go on with a loss that is not a number.

    Raises:
        TrainingError: it says where it happened, and what to try.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in {where} at learning rate {learning_rate:.3g}: "
            "lower optimizer.learning_rate in the recipe, or let the schedule warm up"
        )


def check_no_class_vanished(
    predicted: NDArray[np.int64], y_val: Labels, class_names: tuple[str, ...]
) -> None:
    """Refuse a trained model that never predicts a class although validation is full of it.

    It is asked of the weights that are kept, and not after each epoch: early in training a class
    is often unseen for a while and returns. Such a model may still have a decent accuracy, which
    is why nobody would notice.

    Args:
        predicted: how often each class was predicted on the validation split.
        y_val: its labels; a class counts with at least `VANISHED_SUPPORT` images.
        class_names: in the order of the labels.

    Raises:
        TrainingError: it names the classes.
    """
    support = np.bincount(y_val, minlength=len(class_names))
    lost = _names((predicted == 0) & (support >= VANISHED_SUPPORT), class_names)
    if lost:
        raise TrainingError(
            f"the trained model never predicts {lost} in {len(y_val)} validation images: "
            "train longer, lower optimizer.learning_rate, or check the labels"
        )


def _names(marked: NDArray[np.bool_], class_names: tuple[str, ...]) -> str:
    """Join the names of the marked classes."""
    return ", ".join(name for name, mark in zip(class_names, marked, strict=True) if mark)
