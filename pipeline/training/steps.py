"""What computes a training: the steps of Keras' backend, behind one interface.

`compile_training` and `compile_forward` make the functions; the arrays they are called with are in
the memory of the device, as `uint8` and `int32`, for as long as a training or one chunk of it.
"""

from typing import Any, Protocol

import keras

from pipeline.artifacts.datasets import Images, Labels
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.totals import Measure, Train


class Steps(Protocol):
    """What a backend gives the engine."""

    def put(self, x: Images, y: Labels) -> tuple[Any, Any]:
        """Bring images and labels to the device, without a copy where they are there."""

    def compile_training(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        recipe: Recipe,
        augmentation: Augmentation,
        seed: int,
        total_steps: int,
    ) -> Train:
        """Return what trains on each row of indices in turn, until the loss is not finite.

        Args:
            model: trained in place.
            optimizer: built for the model; its state goes on.
            recipe: loss and batch size are read from it.
            augmentation: of the images.
            seed: of the augmentation.
            total_steps: of the whole training, which tell what compiling may cost.
        """

    def compile_forward(self, model: keras.Model, recipe: Recipe) -> Measure:
        """Return what measures the model on all images, in large batches."""

    def gradients(self, model: keras.Model, recipe: Recipe, x: Images, y: Labels) -> list[Any]:
        """Return the gradient of each trainable variable, without dropout and augmentation."""


def steps() -> Steps:
    """Return those of the backend that Keras runs on."""
    found: Any
    if keras.backend.backend() == "jax":
        from pipeline.training.backends import steps_jax as found
    else:
        from pipeline.training.backends import steps_tensorflow as found
    return found  # type: ignore[no-any-return]
