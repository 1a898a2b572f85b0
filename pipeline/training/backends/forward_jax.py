"""What JAX computes of a model without training it: all images in large batches, or gradients."""

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
from pipeline.models.recipes import Recipe
from pipeline.training.backends.sums import (
    Measure,
    Sums,
    add_sums,
    images_per_forward,
    read_sums,
    score,
    zero_sums,
)
from pipeline.training.losses import loss_of

# What is computed once is not worth the search for the fastest kernels, which takes seconds.
_ONCE = {"xla_gpu_autotune_level": 0}
MOST_KEPT = 8  # compiled functions of each kind; each keeps the variables of one model


@dataclass(frozen=True)
class Described:
    """A model; equal to every other one with the same description."""

    description: str
    recipe: Recipe
    model: keras.Model = field(compare=False)


def describe(model: keras.Model, recipe: Recipe) -> Described:
    """Return what a compiled function is kept for."""
    description = json.dumps(model.get_config(), default=str)
    # Weights by name cannot be a key; `_Training` has them by label.
    alike = recipe.model_copy(update={"seed": None, "class_weights": None})
    return Described(description, alike, model)


def put(x: Pixels | Vectors, y: Labels) -> tuple[Any, Any]:
    """Move images and labels to the device."""
    return jnp.asarray(x), jnp.asarray(y, jnp.int32)


def compile_forward(model: keras.Model, recipe: Recipe, x: Any, y: Any) -> Measure:
    """Return a function that measures the model on all images, in large batches."""
    forward = _forward(describe(model, recipe))

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


@lru_cache(maxsize=MOST_KEPT)
def _forward(described: Described) -> Any:
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
        found = _gradients(describe(model, recipe))(*_values(model), *put(x, y))
        return [np.asarray(gradient) for gradient in found]

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(of, models))


@lru_cache(maxsize=MOST_KEPT)
def _gradients(described: Described) -> Any:
    """Compile the gradients; images are arguments, as XLA would fold constants for seconds."""
    loss = loss_of(described.recipe, described.model.output_shape[-1])

    def mean_loss(trained: Any, others: Any, x: Any, y: Any) -> Any:
        probabilities, _ = described.model.stateless_call(trained, others, x, training=False)
        return jnp.mean(loss(y, probabilities))

    return jax.jit(jax.grad(mean_loss), compiler_options=_ONCE)


def _values(model: keras.Model) -> Any:
    """Return the values of the trainable variables, and of the others."""
    return tuple([variable.value for variable in kind] for kind in kinds(model))


def kinds(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return the trainable variables, and the others."""
    return model.trainable_variables, model.non_trainable_variables
