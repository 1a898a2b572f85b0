"""Steps as compiled TensorFlow functions: many per call, so that Python runs once a second."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.artifacts.datasets import Labels, Pixels, Vectors
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.averages import new_share
from pipeline.training.backends.mixing import mix
from pipeline.training.backends.sums import (
    ALIGNMENT,
    Indices,
    Measure,
    Mirrored,
    Train,
    add_sums,
    images_per_forward,
    read_sums,
    score,
    zero_sums,
)
from pipeline.training.losses import loss_of, weighing

# On CPU XLA makes steps of dense layers a fifth to a half faster, and steps of convolutions many
# times slower. It takes two seconds to compile, which pays off after so many steps.
STEPS_WORTH_XLA = 10_000


def put(x: Pixels | Vectors, y: Labels) -> tuple[Any, Any]:
    """Move images and labels to the device, without a copy if they are there already."""
    return _tensor(x), tf.convert_to_tensor(y, tf.int32)


def _tensor(x: Pixels | Vectors) -> Any:
    """Share the memory of the array, or of its file, if TensorFlow can compute on it in place."""
    shared = x.flags.writeable and x.flags.c_contiguous and x.ctypes.data % ALIGNMENT == 0
    if shared and not tf.config.get_visible_devices("GPU"):
        plain: NDArray[Any] = np.asarray(x)
        return tf.experimental.dlpack.from_dlpack(plain.__dlpack__())
    return tf.convert_to_tensor(x)


def compile_training(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    augmentation: Augmentation,
    seed: int,
    total_steps: int,
    class_weights: tuple[float, ...] | None = None,
    averages: Sequence[Any] = (),
) -> Train:
    """Return a function that trains on each row of indices, until the loss is not finite."""
    variables, num_classes = model.trainable_variables, model.output_shape[-1]
    loss = loss_of(recipe, num_classes)
    weigh = weighing(class_weights)

    def train_step(x: Any, y: Any, indices: Any, mirrored: Any) -> Any:
        images, labels = tf.gather(x, indices), tf.gather(y, indices)
        targets = labels
        if augmentation != Augmentation():
            at = [seed, tf.cast(optimizer.iterations, tf.int32)]
            draws = tf.random.stateless_uniform([draws_of(augmentation), tf.shape(indices)[0]], at)
            images = augment(images, augmentation, draws, mirrored)
            images, targets, labels = mix(images, labels, augmentation, draws[-4:], num_classes)
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            losses = loss(targets, probabilities)
            total = tf.reduce_mean(weigh(losses, targets)) + sum(model.losses)
        optimizer.apply(tape.gradient(total, variables), variables)
        if averages:
            share = new_share(recipe.ema, optimizer.iterations)
            for average, weight in zip(averages, model.weights, strict=True):
                average.assign(average + (weight - average) * share)
        return score(labels, probabilities, losses)

    def train_steps(x: Any, y: Any, indices: Any, mirrored: Any, count: Any) -> Any:
        step, sums = tf.constant(0), zero_sums(model.output_shape[-1])
        while step < count and tf.math.is_finite(sums[0]):
            sums = add_sums(sums, train_step(x, y, indices[step], mirrored[step]))
            step += 1
        return step, sums

    # One trace serves any number of steps, and the smaller last batch of an epoch too.
    signature = [
        tf.TensorSpec([None, *model.input_shape[1:]], model.inputs[0].dtype),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.bool),
        tf.TensorSpec([], tf.int32),
    ]
    traced = tf.function(train_steps, input_signature=signature)
    if not _is_worth_xla(recipe, total_steps):
        return lambda x, y, indices, mirrored: read_sums(
            *traced(x, y, indices, mirrored, len(indices))
        )
    compiled = tf.function(train_steps, input_signature=signature, jit_compile=True)

    def run(x: Any, y: Any, indices: Indices, mirrored: Mirrored) -> Any:
        if indices.shape[1] != recipe.batch_size:
            return read_sums(*traced(x, y, indices, mirrored, len(indices)))
        # XLA compiles for one shape: indices are padded, and the count says how many rows are run.
        fill = ((0, max(0, len(x) // recipe.batch_size - len(indices))), (0, 0))
        return read_sums(
            *compiled(x, y, np.pad(indices, fill), np.pad(mirrored, fill), len(indices))
        )

    return run


def _is_worth_xla(recipe: Recipe, total_steps: int) -> bool:
    """Whether XLA makes the training shorter, including the time to compile."""
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    return not (recipe.convolves or on_gpu) and total_steps >= STEPS_WORTH_XLA


def compile_forward(model: keras.Model, recipe: Recipe, *_: Any) -> Measure:
    """Return a function that measures the model on all images, in large batches."""
    loss = loss_of(recipe, model.output_shape[-1])
    shape = model.input_shape[1:]
    size = images_per_forward(shape)

    def forward(x: Any, y: Any) -> Any:
        sums = zero_sums(model.output_shape[-1])
        for start in tf.range(0, tf.shape(x)[0], size):
            # One block at a time: by default ten are in memory at once.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            images, labels = x[start : start + size], y[start : start + size]
            probabilities = model(images, training=False)
            sums = add_sums(sums, score(labels, probabilities, loss(labels, probabilities)))
        return tf.constant(1), sums

    signature = [
        tf.TensorSpec([None, *shape], model.inputs[0].dtype),
        tf.TensorSpec([None], tf.int32),
    ]
    traced: Callable[..., Any] = tf.function(forward, input_signature=signature)
    return lambda x, y: read_sums(*traced(x, y))


def gradients(
    models: Sequence[keras.Model], recipe: Recipe, x: Pixels | Vectors, y: Labels
) -> list[list[Any]]:
    """Return for each model the gradients of its trainable variables."""
    return [_gradients(model, recipe, x, y) for model in models]


def _gradients(model: keras.Model, recipe: Recipe, x: Pixels | Vectors, y: Labels) -> list[Any]:
    def computed(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = model(x, training=False)
            loss = tf.reduce_mean(loss_of(recipe, model.output_shape[-1])(y, probabilities))
        return tape.gradient(loss, model.trainable_variables)

    # Compiled like the training, which uses other kernels than single operations do; of those,
    # BiasAddGrad sums bfloat16 so coarsely that large sums stop growing.
    compiled: Callable[..., Any] = tf.function(computed)
    return [np.asarray(gradient) for gradient in compiled(x, y)]
