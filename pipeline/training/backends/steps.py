"""The steps of a training as Keras' backend computes them, behind one interface.

`compile_training` and `compile_forward` return functions. The arrays that these take stay in the
memory of the device, as `uint8` and `int32`, for a whole training or for one chunk of it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import keras

from pipeline.artifacts.datasets import Labels, Pixels, Vectors
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.backends.sums import Measure, Train


class Steps(Protocol):
    """What the engine needs of a backend."""

    def put(self, x: Pixels | Vectors, y: Labels) -> tuple[Any, Any]:
        """Move images and labels to the device, without a copy if they are there already."""

    def compile_training(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        recipe: Recipe,
        augmentation: Augmentation,
        seed: int,
        total_steps: int,
        class_weights: tuple[float, ...] | None = None,
        averages: Sequence[Any] = (),
    ) -> Train:
        """Return a function that trains on each row of indices, until the loss is not finite.

        Args:
            model: trained in place.
            optimizer: built for the model; its state is kept between calls.
            recipe: sets the loss and the batch size.
            augmentation: random changes of the images.
            seed: seeds the augmentation.
            total_steps: the steps of the whole training; they decide what is worth compiling.
            class_weights: what the loss of an image weighs by its class; None weighs all the same.
            averages: variables for the moving averages of the model's weights, in their order; none
                if the recipe has no `ema`.
        """

    def compile_forward(self, model: keras.Model, recipe: Recipe, x: Any, y: Any) -> Measure:
        """Return a function that measures the model on all images, in large batches.

        Args:
            model: measured as it is at each call.
            recipe: sets the loss.
            x: the first images that will be measured; a GPU may be compiled for while it trains.
            y: their labels.
        """

    def gradients(
        self, models: Sequence[keras.Model], recipe: Recipe, x: Pixels | Vectors, y: Labels
    ) -> list[list[Any]]:
        """Return for each model the gradients of its trainable variables.

        They are without dropout and augmentation.
        """


def steps() -> Steps:
    """Return the steps of the backend that Keras runs on."""
    found: Any
    if keras.backend.backend() == "jax":
        from pipeline.training.backends import steps_jax as found
    else:
        from pipeline.training.backends import steps_tensorflow as found
    return found  # type: ignore[no-any-return]
