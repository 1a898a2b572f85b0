"""Fit one model on arrays; knows no files and no tracking. `steps` does the computing.

The `twin` of the model is trained, in the precision of the recipe, and fed by `feed`.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import keras
import numpy as np

from pipeline.artifacts.datasets import Images, Labels
from pipeline.models.build import core
from pipeline.models.layers import Conv
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.models.whitening import whiten
from pipeline.training.device import computes_bfloat16, make_deterministic
from pipeline.training.feed import Wait, feed
from pipeline.training.guards import (
    check_arrays,
    check_every_class_is_taught,
    check_finite,
    check_no_class_vanished,
)
from pipeline.training.history import Epoch, History, Progress
from pipeline.training.optimizers import optimizer_of
from pipeline.training.steps import steps
from pipeline.training.totals import Mirrored, Rows, Totals, Train
from pipeline.training.twin import Agreement, Precision, agreement, twin

_SECONDS_PER_CHUNK = 1.0


@dataclass(frozen=True)
class Data:
    """What a fit sees: images `uint8` (n, height, width, channels), labels `int64` (n,)."""

    x_train: Images
    y_train: Labels
    x_val: Images
    y_val: Labels
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class _Kept:
    """The epoch whose weights the model has, and what validation made of them."""

    epoch: Epoch
    validation: Totals


def fit(
    model: keras.Model,
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    deterministic: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train a model in place, through all phases of its recipe.

    Args:
        model: from `models.build.build` with the same recipe and seed.
        recipe: everything but the layers is read from it.
        data: to train on, and to validate on after each epoch.
        seed: of the order of the images and their augmentation.
        deterministic: equal seeds give equal weights on CPU, more slowly; for the whole process.
        on_epoch: called after each epoch.
        on_progress: called about once a second.

    Raises:
        TrainingError: the data do not fit the model, the loss is not finite, or the model has
            ceased to predict a class.
    """
    check(data, model.input_shape[1:])
    if deterministic:
        make_deterministic(seed)
    once = core(model)
    if isinstance(recipe.layers[0], Conv) and recipe.layers[0].whiten:
        whiten(once.layers[2], data.x_train)
    trained, precision, measured = _twin(once, recipe, data)
    training = _Training(trained, recipe, data, seed, precision, on_progress)
    rows: list[Epoch] = []
    kept: _Kept | None = None
    for row, validation in training.epochs():
        rows.append(row)
        if kept is None or recipe.keep == "last" or _is_better(row, kept.epoch):
            kept = _Kept(row, validation)
            for here, there in zip(model.weights, trained.weights, strict=True):
                here.assign(there)
        if on_epoch:
            on_epoch(row)
    assert kept is not None  # every recipe has at least one epoch
    check_no_class_vanished(kept.validation.predicted, data.y_val, data.class_names)
    return History(tuple(rows), kept.epoch, precision, str(measured) if measured else None)


def _twin(
    model: keras.Model, recipe: Recipe, data: Data
) -> tuple[keras.Model, Precision, Agreement | None]:
    """Return what is trained in place of the model, in the precision that is safe here, and why."""
    if recipe.precision != "bfloat16" or not computes_bfloat16():
        return twin(model, "float32"), "float32", None
    made = twin(model, "bfloat16")
    measured = agreement(model, made, recipe, data.x_train, data.y_train)
    if measured.suffices:
        return made, "bfloat16", measured
    warnings.warn(
        f"this hardware computes other gradients in bfloat16 than in float32, least alike with a "
        f"cosine of {measured}: trained in float32, which takes longer",
        stacklevel=3,
    )
    return twin(model, "float32"), "float32", measured


def _is_better(row: Epoch, other: Epoch) -> bool:
    """Prefer accuracy on the validation split, then the lower loss there."""
    return (row.val_accuracy, -row.val_loss) > (other.val_accuracy, -other.val_loss)


def check(data: Data, image_shape: tuple[int, int, int]) -> None:
    """Refuse data that cannot teach the model.

    Raises:
        TrainingError: empty, wrongly shaped or labelled, or without images of some class.
    """
    check_arrays("train", data.x_train, data.y_train, image_shape, data.class_names)
    check_arrays("val", data.x_val, data.y_val, image_shape, data.class_names)
    check_every_class_is_taught(data.y_train, data.class_names)


def order(seed: int, epoch: int, images: int, augmentation: Augmentation) -> tuple[Rows, Mirrored]:
    """Return the order in which an epoch sees the images, and which of them are mirrored.

    Args:
        seed: of the training.
        epoch: counted from 1.
        images: how many there are.
        augmentation: tells whether images are mirrored at random or in turn.

    Returns:
        Both (images,), for the same places.
    """
    draw = np.random.default_rng((seed, epoch))
    rows = draw.permutation(images).astype(np.int32)
    if augmentation.flip == "alternating":
        at_first = np.random.default_rng((seed, 0)).random(images) < 0.5
        return rows, (at_first ^ bool(epoch % 2))[rows]
    return rows, draw.random(images) < 0.5


class _Training:
    """Epochs of chunks of steps; the optimizer's state is kept through all phases."""

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        data: Data,
        seed: int,
        precision: Precision,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.model, self.recipe, self.seed, self.on_progress = model, recipe, seed, on_progress
        self.train, self.val = feed(data.x_train, data.y_train), feed(data.x_val, data.y_val)
        self.images = len(data.x_train)
        self.steps = math.ceil(self.images / recipe.batch_size)
        self.total_epochs = sum(phase.epochs for phase in recipe.phases)
        self.optimizer = optimizer_of(recipe, self.steps * self.total_epochs, precision)
        self.optimizer.build(model.trainable_variables)
        self.measure = steps().compile_forward(model, recipe)
        self.chunks = _Chunks(self.steps * self.total_epochs)

    def epochs(self) -> Iterator[tuple[Epoch, Totals]]:
        """Train epoch by epoch; yield each row, and the sums of its validation."""
        number = 0
        for phase in self.recipe.phases:
            run = steps().compile_training(
                self.model,
                self.optimizer,
                self.recipe,
                phase.augmentation,
                self.seed,
                self.steps * self.total_epochs,
            )
            for _ in range(phase.epochs):
                number += 1
                yield self._epoch(number, run, phase.augmentation)

    def _epoch(self, number: int, run: Train, augmentation: Augmentation) -> tuple[Epoch, Totals]:
        """Train on each image once, then validate."""
        start = time.perf_counter()
        trained = self._steps(number, run, augmentation)
        learning_rate = float(self.optimizer.learning_rate)
        validation = reduce(add, (self.measure(x, y) for x, y in self.val.blocks()))
        check_finite(validation.loss, f"validation after epoch {number}", learning_rate)
        row = Epoch(
            epoch=number,
            loss=trained.mean_loss,
            accuracy=trained.accuracy,
            val_loss=validation.mean_loss,
            val_accuracy=validation.accuracy,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
        )
        return row, validation

    def _steps(self, number: int, run: Train, augmentation: Augmentation) -> Totals:
        """Run the steps of an epoch, chunk by chunk; the next chunk is read meanwhile."""
        pieces = self._pieces(number, augmentation)
        piece, done = next(pieces, None), 0
        totals: Totals | None = None
        while piece:
            following = next(pieces, None)
            wait, mirrored = piece
            chunk = self.chunks.timed(run, *wait(), mirrored)
            at = f"epoch {number}, step {done + chunk.steps} of {self.steps}"
            check_finite(chunk.loss, at, float(self.optimizer.learning_rate))
            totals = totals + chunk if totals else chunk
            done += len(mirrored)
            self._report(number, done, totals)
            piece = following
        assert totals is not None  # there is at least one image
        return totals

    def _pieces(self, number: int, augmentation: Augmentation) -> Iterator[tuple[Wait, Mirrored]]:
        """Cut an epoch into chunks, each asked for as it is taken."""
        rows, mirrored = order(self.seed, number, self.images, augmentation)
        batch, asked = self.recipe.batch_size, 0
        full = self.images // batch
        while asked < self.steps:
            # The last, smaller batch has a chunk of its own: a chunk is one rectangle of indices.
            most = max(1, min(self.chunks.size, self.train.most_rows // batch))
            size = min(most, full - asked) if asked < full else 1
            here = slice(asked * batch, (asked + size) * batch)
            asked += size
            yield self.train.ask(rows[here].reshape(size, -1)), mirrored[here].reshape(size, -1)

    def _report(self, number: int, step: int, totals: Totals) -> None:
        """Tell where the training stands."""
        # The first chunk compiles: its time foretells nothing.
        if self.on_progress and self.chunks.done > 1:
            self.on_progress(
                Progress(
                    epoch=number,
                    epochs=self.total_epochs,
                    step=step,
                    steps=self.steps,
                    loss=totals.mean_loss,
                    accuracy=totals.accuracy,
                    seconds_left=self.chunks.seconds_left,
                )
            )


class _Chunks:
    """How many steps are run at a time, so that one takes about a second, and how long all take."""

    def __init__(self, total_steps: int) -> None:
        self.size, self.done, self.total = 1, 0, total_steps
        self.start = time.perf_counter()

    def timed(self, run: Train, x: Any, y: Any, rows: Rows, mirrored: Mirrored) -> Totals:
        """Run a chunk, and fit the size of the ones to come to the time that it took."""
        start = time.perf_counter()
        totals = run(x, y, rows, mirrored)
        seconds = time.perf_counter() - start
        fitting = int(len(rows) * _SECONDS_PER_CHUNK / seconds)
        self.size = max(1, min(fitting, 8 * self.size))
        if not self.done:
            self.start = time.perf_counter()  # the first chunk compiles, which is no measure
        self.done += len(rows)
        return totals

    @property
    def seconds_left(self) -> float:
        """The time for the steps that are left, at the pace so far."""
        return (time.perf_counter() - self.start) / self.done * (self.total - self.done)
