"""Steps as compiled JAX functions; they take and return the state, which is then assigned.

One compilation serves all models with the same description: weights and seeds are arguments.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from pipeline.artifacts.datasets import Labels, Pixels, Vectors
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.averages import new_share
from pipeline.training.backends.mixing import mix
from pipeline.training.backends.sums import (
    Indices,
    Measure,
    Mirrored,
    Sums,
    Train,
    add_sums,
    images_per_forward,
    read_sums,
    score,
    zero_sums,
)
from pipeline.training.losses import loss_of, weighing

# What is computed once is not worth the search for the fastest kernels, which takes seconds.
_ONCE = {"xla_gpu_autotune_level": 0}
_MOST_KEPT = 8  # compiled functions of each kind; each keeps the variables of one model


@dataclass(frozen=True)
class _Model:
    """A model; equal to every other one with the same description."""

    description: str
    recipe: Recipe
    model: keras.Model = field(compare=False)


@dataclass(frozen=True)
class _Training:
    """A training; equal to every other one that differs only in weights and seed."""

    described: _Model
    augmentation: Augmentation
    total_steps: int
    class_weights: tuple[float, ...] | None
    optimizer: keras.optimizers.Optimizer = field(compare=False)


def _model(model: keras.Model, recipe: Recipe) -> _Model:
    description = json.dumps(model.get_config(), default=str)
    # Weights by name cannot be a key; `_Training` has them by label.
    alike = recipe.model_copy(update={"seed": None, "class_weights": None})
    return _Model(description, alike, model)


def put(x: Pixels | Vectors, y: Labels) -> tuple[Any, Any]:
    """Move images and labels to the device."""
    return jnp.asarray(x), jnp.asarray(y, jnp.int32)


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
    train_steps = compiled_steps(
        _Training(_model(model, recipe), augmentation, total_steps, class_weights, optimizer)
    )
    key = jax.random.key(seed)
    variables = (*_kinds(model), optimizer.variables, averages)

    def run(x: Any, y: Any, indices: Indices, mirrored: Mirrored) -> Sums:
        # Indices are padded to the rows of an epoch; the count says how many rows are run.
        fill = ((0, max(0, len(x) // indices.shape[1] - len(indices))), (0, 0))
        fill = fill if indices.shape[1] == recipe.batch_size else ((0, 0), (0, 0))
        state = (
            *([v.value for v in kind] for kind in variables),
            zero_sums(model.output_shape[-1]),
        )
        steps, (*changed, sums) = train_steps(
            state, key, x, y, np.pad(indices, fill), np.pad(mirrored, fill), len(indices)
        )
        for kind, new in zip(variables, changed, strict=True):
            for variable, value in zip(kind, new, strict=True):
                variable.assign(value)
        return read_sums(steps, sums)

    return run


@lru_cache(maxsize=_MOST_KEPT)
def compiled_steps(training: _Training) -> Any:
    """Compile the steps; the smaller last batch of an epoch is compiled separately."""
    model, optimizer, augmentation = (
        training.described.model,
        training.optimizer,
        training.augmentation,
    )
    num_classes = model.output_shape[-1]
    loss = loss_of(training.described.recipe, num_classes)
    weigh = weighing(training.class_weights)
    iterations = optimizer.variables.index(optimizer.iterations)
    # Named here once: another phase of the training may change what is trainable.
    trainable, fixed = _kinds(model)
    place_of = {id(variable): place for place, variable in enumerate([*trainable, *fixed])}
    places = [place_of[id(weight)] for weight in model.weights]
    ema = training.described.recipe.ema

    def loss_and_more(trained: Any, others: Any, images: Any, targets: Any, labels: Any) -> Any:
        values = [*zip(trainable, trained, strict=True), *zip(fixed, others, strict=True)]
        with keras.StatelessScope(state_mapping=values, collect_losses=True) as scope:
            probabilities = model.call(images, training=True)
            losses = model.losses
        others = [scope.get_current_value(variable) for variable in fixed]
        each = loss(targets, probabilities)
        return jnp.mean(weigh(each, targets)) + sum(losses), (
            others,
            score(labels, probabilities, each),
        )

    def apply(moments: Any, gradients: Any, trained: Any) -> Any:
        # The optimizer may have variables of other phases too, which stay as they are.
        own = optimizer.variables
        values = [*zip(trainable, trained, strict=True), *zip(own, moments, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope:
            optimizer.apply(gradients, trainable)
        return [[scope.get_current_value(v) for v in kind] for kind in (trainable, own)]

    differentiate = jax.value_and_grad(loss_and_more, has_aux=True)

    def train_step(state: Any, key: Any, x: Any, y: Any, indices: Any, mirrored: Any) -> Any:
        trained, others, moments, averages, sums = state
        images, labels = x[indices], y[indices]
        targets = labels
        if augmentation != Augmentation():
            at = jax.random.fold_in(key, moments[iterations])
            draws = jax.random.uniform(at, (draws_of(augmentation), len(indices)))
            images = augment(images, augmentation, draws, mirrored)
            images, targets, labels = mix(images, labels, augmentation, draws[-4:], num_classes)
        (_, (others, more)), gradients = differentiate(trained, others, images, targets, labels)
        trained, moments = apply(moments, gradients, trained)
        if averages:
            share, values = new_share(ema, moments[iterations]), [*trained, *others]
            weights = [values[place] for place in places]
            averages = [a + (w - a) * share for a, w in zip(averages, weights, strict=True)]
        return trained, others, moments, averages, add_sums(sums, more)

    @jax.jit  # type: ignore[untyped-decorator]
    def train_steps(
        state: Any, key: Any, x: Any, y: Any, indices: Any, mirrored: Any, count: Any
    ) -> Any:
        def goes_on(at: Any) -> Any:
            step, (*_, sums) = at
            return (step < count) & jnp.isfinite(sums[0])

        def body(at: Any) -> Any:
            step, state = at
            return step + 1, train_step(state, key, x, y, indices[step], mirrored[step])

        return jax.lax.while_loop(goes_on, body, (0, state))

    return train_steps


def compile_forward(model: keras.Model, recipe: Recipe, x: Any, y: Any) -> Measure:
    """Return a function that measures the model on all images, in large batches."""
    forward = _forward(_model(model, recipe))

    def measure(x: Any, y: Any) -> Sums:
        return read_sums(1, forward([variable.value for variable in model.variables], x, y))

    if jax.default_backend() != "gpu":
        return measure
    # Called once in a thread, which compiles it while the steps are compiled.
    thread = ThreadPoolExecutor(1)
    compiled = thread.submit(measure, x, y)
    thread.shutdown(wait=False)

    def measure_later(x: Any, y: Any) -> Sums:
        compiled.result()
        return measure(x, y)

    return measure_later


@lru_cache(maxsize=_MOST_KEPT)
def _forward(described: _Model) -> Any:
    """Compile the measurement in blocks; the last block overlaps the one before."""
    model = described.model
    loss = loss_of(described.recipe, model.output_shape[-1])
    most = images_per_forward(model.input_shape[1:])

    @jax.jit  # type: ignore[untyped-decorator]
    def forward(variables: Any, x: Any, y: Any) -> Any:
        size = min(most, len(x))

        def block(number: Any, sums: Any) -> Any:
            start = jnp.minimum(number * size, len(x) - size)
            images, labels = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in (x, y))
            pairs = zip(model.variables, variables, strict=True)
            with keras.StatelessScope(state_mapping=list(pairs)):
                probabilities = model.call(images, training=False)
            counted = start + jnp.arange(size) >= number * size
            losses = loss(labels, probabilities)
            return add_sums(sums, score(labels, probabilities, losses, counted))

        return jax.lax.fori_loop(0, -(-len(x) // size), block, zero_sums(model.output_shape[-1]))

    return forward


def gradients(
    models: Sequence[keras.Model], recipe: Recipe, x: Pixels | Vectors, y: Labels
) -> list[list[Any]]:
    """Return for each model the gradients of its trainable variables; each has a thread."""

    def of(model: keras.Model) -> list[Any]:
        found = _gradients(_model(model, recipe))(*_values(model), *put(x, y))
        return [np.asarray(gradient) for gradient in found]

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(of, models))


@lru_cache(maxsize=_MOST_KEPT)
def _gradients(described: _Model) -> Any:
    """Compile the gradients; images are arguments, as XLA would fold constants for seconds."""
    loss = loss_of(described.recipe, described.model.output_shape[-1])

    def mean_loss(trained: Any, others: Any, x: Any, y: Any) -> Any:
        probabilities, _ = described.model.stateless_call(trained, others, x, training=False)
        return jnp.mean(loss(y, probabilities))

    return jax.jit(jax.grad(mean_loss), compiler_options=_ONCE)


def _values(model: keras.Model) -> Any:
    """Return the values of the trainable variables, and of the others."""
    return tuple([variable.value for variable in kind] for kind in _kinds(model))


def _kinds(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return the trainable variables, and the others."""
    return model.trainable_variables, model.non_trainable_variables
