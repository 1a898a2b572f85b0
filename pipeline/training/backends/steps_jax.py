"""Steps as compiled JAX functions; they take and return the state, which is then assigned.

One compilation serves all models with the same description: weights and seeds are arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from pipeline.models.recipes import Augmentation, Recipe
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.averages import new_share
from pipeline.training.backends.forward_jax import (
    MOST_KEPT,
    Described,
    compile_forward,
    describe,
    gradients,
    kinds,
    put,
)
from pipeline.training.backends.mixing import mix
from pipeline.training.backends.sums import (
    Indices,
    Mirrored,
    Sums,
    Train,
    add_sums,
    read_sums,
    score,
    zero_sums,
)
from pipeline.training.losses import loss_of, weighing

__all__ = ["compile_forward", "compile_training", "gradients", "put"]


@dataclass(frozen=True)
class _Training:
    """A training; equal to every other one that differs only in weights and seed."""

    described: Described
    augmentation: Augmentation
    total_steps: int
    class_weights: tuple[float, ...] | None
    optimizer: keras.optimizers.Optimizer = field(compare=False)


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
        _Training(describe(model, recipe), augmentation, total_steps, class_weights, optimizer)
    )
    key = jax.random.key(seed)
    variables = (*kinds(model), optimizer.variables, averages)

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


@lru_cache(maxsize=MOST_KEPT)
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
    trainable, fixed = kinds(model)
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
