"""Steps as compiled TensorFlow functions: many at a time, so that Python is asked once a second."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.artifacts.datasets import Images, Labels
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.augment import DRAWS, augment
from pipeline.training.optimizers import loss_of
from pipeline.training.sums import (
    ALIGNMENT,
    Indices,
    Measure,
    Mirrored,
    Train,
    added,
    images_per_forward,
    nothing,
    read,
    score,
)

# XLA makes a step of dense layers a fifth to a half faster on CPU and those of convolutions many
# times slower; it takes two seconds to compile, which so many steps repay.
_STEPS_THAT_REPAY_XLA = 10_000


def put(x: Images, y: Labels) -> tuple[Any, Any]:
    """Bring images and labels to the device, without a copy where they are there."""
    return _tensor(x), tf.convert_to_tensor(y, tf.int32)


def _tensor(x: Images) -> Any:
    """Share the memory of the array, or of its file, where TensorFlow computes on it as it lies."""
    shared = x.flags.writeable and x.flags.c_contiguous and x.ctypes.data % ALIGNMENT == 0
    if shared and not tf.config.get_visible_devices("GPU"):
        return tf.experimental.dlpack.from_dlpack(np.asarray(x).__dlpack__())
    return tf.convert_to_tensor(x)


def compile_training(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    augmentation: Augmentation,
    seed: int,
    total_steps: int,
) -> Train:
    """Return what trains on each row of indices in turn, until the loss is not finite."""
    variables, loss = model.trainable_variables, loss_of(recipe, model.output_shape[-1])

    def train_step(x: Any, y: Any, indices: Any, mirrored: Any) -> Any:
        images, labels = tf.gather(x, indices), tf.gather(y, indices)
        if augmentation != Augmentation():
            at = [seed, tf.cast(optimizer.iterations, tf.int32)]
            draws = tf.random.stateless_uniform([DRAWS, tf.shape(indices)[0]], at)
            images = augment(images, augmentation, draws, mirrored)
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            losses = loss(labels, probabilities)
            total = tf.reduce_mean(losses) + sum(model.losses)
        optimizer.apply(tape.gradient(total, variables), variables)
        return score(labels, probabilities, losses)

    def train_steps(x: Any, y: Any, indices: Any, mirrored: Any, count: Any) -> Any:
        step, sums = tf.constant(0), nothing(model.output_shape[-1])
        while step < count and tf.math.is_finite(sums[0]):
            sums = added(sums, train_step(x, y, indices[step], mirrored[step]))
            step += 1
        return step, sums

    # One trace serves every number of steps, and the smaller last batch of an epoch as well.
    signature = [
        tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([], tf.int32),
    ]
    traced = tf.function(train_steps, input_signature=signature)
    if not _repays_xla(recipe, total_steps):
        return lambda x, y, indices, mirrored: read(*traced(x, y, indices, mirrored, len(indices)))
    compiled = tf.function(train_steps, input_signature=signature, jit_compile=True)

    def run(x: Any, y: Any, indices: Indices, mirrored: Mirrored) -> Any:
        if indices.shape[1] != recipe.batch_size:
            return read(*traced(x, y, indices, mirrored, len(indices)))
        # XLA compiles for one shape: indices are filled up, and the count says how many are run.
        fill = ((0, max(0, len(x) // recipe.batch_size - len(indices))), (0, 0))
        return read(*compiled(x, y, np.pad(indices, fill), np.pad(mirrored, fill), len(indices)))

    return run


def _repays_xla(recipe: Recipe, total_steps: int) -> bool:
    """Whether XLA makes the training shorter, what it takes to compile included."""
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    return not (recipe.convolves or on_gpu) and total_steps >= _STEPS_THAT_REPAY_XLA


def compile_forward(model: keras.Model, recipe: Recipe) -> Measure:
    """Return what measures the model on all images, in large batches."""
    loss = loss_of(recipe, model.output_shape[-1])
    shape = model.input_shape[1:]
    size = images_per_forward(shape)

    def forward(x: Any, y: Any) -> Any:
        sums = nothing(model.output_shape[-1])
        for start in tf.range(0, tf.shape(x)[0], size):
            # One block at a time: by default ten are in memory at once.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            images, labels = x[start : start + size], y[start : start + size]
            probabilities = model(images, training=False)
            sums = added(sums, score(labels, probabilities, loss(labels, probabilities)))
        return tf.constant(1), sums

    signature = [tf.TensorSpec([None, *shape], tf.uint8), tf.TensorSpec([None], tf.int32)]
    traced: Callable[..., Any] = tf.function(forward, input_signature=signature)
    return lambda x, y: read(*traced(x, y))


def gradients(model: keras.Model, recipe: Recipe, x: Images, y: Labels) -> list[Any]:
    """Return the gradient of each trainable variable, without dropout and augmentation."""

    def computed(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = model(x, training=False)
            loss = tf.reduce_mean(loss_of(recipe, model.output_shape[-1])(y, probabilities))
        return tape.gradient(loss, model.trainable_variables)

    # Compiled as the training is: its kernels are others than those of single operations, of
    # which BiasAddGrad sums bfloat16 so coarsely that large sums stand still.
    compiled: Callable[..., Any] = tf.function(computed)
    return [np.asarray(gradient) for gradient in compiled(x, y)]
