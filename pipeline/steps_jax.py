"""Steps as compiled JAX functions. What a step changes is handed in and out, and then put back."""

from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from pipeline.artifacts import Images, Labels
from pipeline.augment import DRAWS, augment
from pipeline.optimizers import loss_of
from pipeline.recipes import Augmentation, Recipe
from pipeline.totals import (
    Measure,
    Mirrored,
    Rows,
    Totals,
    Train,
    added,
    images_per_forward,
    nothing,
    read,
    score,
)


def put(x: Images, y: Labels) -> tuple[Any, Any]:
    """Bring images and labels to the device."""
    return jnp.asarray(x), jnp.asarray(y, jnp.int32)


def compile_training(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    augmentation: Augmentation,
    seed: int,
    total_steps: int,
) -> Train:
    """Return what trains on each row of indices in turn, until the loss is not finite."""
    loss = loss_of(recipe, model.output_shape[-1])
    key = jax.random.key(seed)
    iterations = optimizer.variables.index(optimizer.iterations)

    def loss_and_more(trained: Any, others: Any, images: Any, labels: Any) -> Any:
        probabilities, others, losses = model.stateless_call(
            trained, others, images, training=True, return_losses=True
        )
        each = loss(labels, probabilities)
        return jnp.mean(each) + sum(losses), (others, score(labels, probabilities, each))

    differentiate = jax.value_and_grad(loss_and_more, has_aux=True)

    def train_step(state: Any, x: Any, y: Any, rows: Any, mirrored: Any) -> Any:
        trained, others, moments, totals = state
        images = x[rows]
        if augmentation != Augmentation():
            at = jax.random.fold_in(key, moments[iterations])
            draws = jax.random.uniform(at, (DRAWS, len(rows)))
            images = augment(images, augmentation, draws, mirrored)
        (_, (others, more)), gradients = differentiate(trained, others, images, y[rows])
        trained, moments = optimizer.stateless_apply(moments, gradients, trained)
        return trained, others, moments, added(totals, more)

    # One compilation serves every number of steps; the smaller last batch has its own.
    @jax.jit  # type: ignore[untyped-decorator]
    def train_steps(state: Any, x: Any, y: Any, rows: Any, mirrored: Any, count: Any) -> Any:
        def goes_on(at: Any) -> Any:
            step, (*_, totals) = at
            return (step < count) & jnp.isfinite(totals[0])

        def body(at: Any) -> Any:
            step, state = at
            return step + 1, train_step(state, x, y, rows[step], mirrored[step])

        return jax.lax.while_loop(goes_on, body, (0, state))

    def run(x: Any, y: Any, rows: Rows, mirrored: Mirrored) -> Totals:
        # Rows are filled up to those of an epoch, and the count says how many are run.
        fill = ((0, max(0, len(x) // rows.shape[1] - len(rows))), (0, 0))
        fill = fill if rows.shape[1] == recipe.batch_size else ((0, 0), (0, 0))
        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        state = (*([v.value for v in kind] for kind in variables), nothing(model.output_shape[-1]))
        steps, (*values, totals) = train_steps(
            state, x, y, np.pad(rows, fill), np.pad(mirrored, fill), len(rows)
        )
        for kind, new in zip(variables, values, strict=True):
            for variable, value in zip(kind, new, strict=True):
                variable.assign(value)
        return read(steps, totals)

    return run


def compile_forward(model: keras.Model, recipe: Recipe) -> Measure:
    """Return what measures the model on all images, in large batches."""
    loss = loss_of(recipe, model.output_shape[-1])
    size = images_per_forward(model.input_shape[1:])

    @jax.jit  # type: ignore[untyped-decorator]
    def forward(variables: Any, images: Any, labels: Any) -> Any:
        probabilities, _ = model.stateless_call(*variables, images, training=False)
        return score(labels, probabilities, loss(labels, probabilities))

    def measure(x: Any, y: Any) -> Totals:
        kinds = (model.trainable_variables, model.non_trainable_variables)
        variables = [[variable.value for variable in kind] for kind in kinds]
        totals = nothing(model.output_shape[-1])
        for start in range(0, len(x), size):
            piece = slice(start, start + size)
            totals = added(totals, forward(variables, x[piece], y[piece]))
        return read(1, totals)

    return measure


def gradients(model: keras.Model, recipe: Recipe, x: Images, y: Labels) -> list[Any]:
    """Return the gradient of each trainable variable, without dropout and augmentation."""
    loss = loss_of(recipe, model.output_shape[-1])
    others = [variable.value for variable in model.non_trainable_variables]

    def mean_loss(trained: Any) -> Any:
        probabilities, _ = model.stateless_call(trained, others, x, training=False)
        return jnp.mean(loss(y, probabilities))

    found = jax.jit(jax.grad(mean_loss))([v.value for v in model.trainable_variables])
    return [np.asarray(gradient) for gradient in found]
