"""Fit one model on arrays, without files or tracking; `backends.steps` does the computing.

The `twin` of the model is trained, in the precision of the recipe, and `feed` brings the images.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import keras

from pipeline.artifacts.datasets import Images, Labels, Vectors
from pipeline.models.backbones.build import set_trainable
from pipeline.models.layers import Conv
from pipeline.models.parts import core, has_backbone
from pipeline.models.recipes import Augmentation, Recipe
from pipeline.models.whitening import whiten
from pipeline.training.backends.steps import steps
from pipeline.training.backends.sums import Mirrored, Sums, Train
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.chunks import Chunks
from pipeline.training.device import make_deterministic
from pipeline.training.feed import Prefetched, feed, order
from pipeline.training.history import Epoch, History, Progress
from pipeline.training.losses import weights_of
from pipeline.training.optimizers import optimizer_of
from pipeline.training.state import TrainingState
from pipeline.training.training_checks import (
    check_arrays,
    check_every_class_has_images,
    check_every_class_is_predicted,
    check_finite,
)
from pipeline.training.twin import safe_twin, twin


@dataclass(frozen=True)
class Data:
    """The data of a training: images `uint8` (n, height, width, channels), labels `int64` (n,).

    In the place of images there may be their features, `float32` (n, d).
    """

    x_train: Images | Vectors
    y_train: Labels
    x_val: Images | Vectors
    y_val: Labels
    class_names: tuple[str, ...]


def fit(
    model: keras.Model,
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    deterministic: bool = False,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train a model in place, through all phases of its recipe.

    Args:
        model: the result of `models.build.build` with the same recipe and seed.
        recipe: sets everything but the layers.
        data: images to train on, and to validate on after each epoch.
        seed: seeds the order of the images and their augmentation.
        deterministic: whether equal seeds give equal weights on CPU, more slowly; it stays on for
            the whole process.
        checkpoints: where to go on from, and what saves each epoch.
        on_epoch: called after each epoch.
        on_progress: called about once a second.

    Raises:
        TrainingError: the data do not fit the model or the recipe, the loss is not finite, or the
            trained model never predicts a class.
    """
    check(data, model.input_shape[1:], model.inputs[0].dtype)
    if deterministic:
        make_deterministic(seed)
    single = core(model)
    if isinstance(recipe.layers[0], Conv) and recipe.layers[0].whiten:
        whiten(single.layers[2], data.x_train)
    # The optimizer and the comparison of gradients are for all that any phase trains.
    if recipe.ever_trainable and has_backbone(single):
        set_trainable(single, recipe.ever_trainable)
    trained, precision, agreement = safe_twin(single, recipe, data.x_train, data.y_train)
    steps_per_epoch = math.ceil(len(data.x_train) / recipe.batch_size)
    optimizer = optimizer_of(recipe, steps_per_epoch * recipe.total_epochs, precision)
    optimizer.build(trained.trainable_variables)
    state = TrainingState(model, trained, optimizer, seed, recipe.keep, precision)
    measured = trained
    if recipe.ema:
        measured = twin(single, precision)
        state.averages = measured.weights
    if checkpoints:
        checkpoints.restore(state)
    for epoch, validation in _Epochs(state, measured, recipe, data, on_progress).run():
        state.add(epoch, validation)
        if checkpoints:
            checkpoints.add(state)
        if on_epoch:
            on_epoch(epoch)
    if checkpoints:
        checkpoints.finish(state)
    assert state.kept is not None  # every recipe has at least one epoch
    check_every_class_is_predicted(state.predicted, data.y_val, data.class_names)
    found = str(agreement) if agreement else None
    stopped = len(state.epochs) < recipe.total_epochs
    return History(tuple(state.epochs), state.kept, precision, found, stopped)


def check(data: Data, image_shape: tuple[int, ...], dtype: str = "uint8") -> None:
    """Refuse data that the model, which takes this shape and type, cannot learn from.

    Raises:
        TrainingError: a split is empty or has wrong shapes or labels, or a class has no images.
    """
    check_arrays("train", data.x_train, data.y_train, image_shape, data.class_names, dtype)
    check_arrays("val", data.x_val, data.y_val, image_shape, data.class_names, dtype)
    check_every_class_has_images(data.y_train, data.class_names)


class _Epochs:
    """The epochs of a training, each a number of chunks of steps and then a validation."""

    def __init__(
        self,
        state: TrainingState,
        measured: keras.Model,
        recipe: Recipe,
        data: Data,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.state, self.recipe, self.on_progress = state, recipe, on_progress
        self.train, self.val = feed(data.x_train, data.y_train), feed(data.x_val, data.y_val)
        self.images = len(data.x_train)
        self.balanced = data.y_train if recipe.sampling == "balanced" else None
        self.class_weights = weights_of(recipe.class_weights, data.y_train, data.class_names)
        self.steps = math.ceil(self.images / recipe.batch_size)
        self.total_steps = self.steps * recipe.total_epochs
        self.measure = steps().compile_forward(measured, recipe, *next(self.val.blocks()))
        left = sum(phase.epochs for phase in recipe.phases[state.phase :]) - state.epochs_of_phase
        self.chunks = Chunks(left * self.steps)

    def run(self) -> Iterator[tuple[Epoch, Sums]]:
        """Train epoch by epoch; yield each one, and the sums of its validation.

        Whoever takes an epoch adds it to the state, which says when a phase ends.
        """
        planned = 0
        for number, phase in enumerate(self.recipe.phases):
            planned += phase.epochs
            if number < self.state.phase:
                continue
            if phase.trainable and has_backbone(self.state.twin):
                set_trainable(self.state.twin, phase.trainable)
            train = steps().compile_training(
                self.state.twin,
                self.state.optimizer,
                self.recipe,
                phase.augmentation,
                self.state.seed,
                self.total_steps,
                self.class_weights,
                self.state.averages,
            )
            while not self.state.phase_ends(phase.epochs, self.recipe.patience):
                yield self._epoch(len(self.state.epochs) + 1, train, phase.augmentation)
            self.chunks.total -= self.steps * (phase.epochs - self.state.epochs_of_phase)
            self.state.begin_phase(planned * self.steps)

    def _epoch(self, number: int, train: Train, augmentation: Augmentation) -> tuple[Epoch, Sums]:
        """Train on as many images as there are, then validate."""
        start = time.perf_counter()
        trained = self._train(number, train, augmentation)
        learning_rate = self.state.learning_rate
        validation = reduce(add, (self.measure(x, y) for x, y in self.val.blocks()))
        check_finite(validation.loss, f"validation after epoch {number}", learning_rate)
        epoch = Epoch(
            epoch=number,
            loss=trained.mean_loss,
            accuracy=trained.accuracy,
            val_loss=validation.mean_loss,
            val_accuracy=validation.accuracy,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - start,
        )
        return epoch, validation

    def _train(self, number: int, train: Train, augmentation: Augmentation) -> Sums:
        """Run the steps of an epoch, chunk by chunk, while the next chunk is read."""
        pieces = self._pieces(number, augmentation)
        piece, done = next(pieces, None), 0
        sums: Sums | None = None
        while piece:
            following = next(pieces, None)
            prefetched, mirrored = piece
            chunk = self.chunks.timed(train, *prefetched(), mirrored)
            at = f"epoch {number}, step {done + chunk.steps} of {self.steps}"
            check_finite(chunk.loss, at, self.state.learning_rate)
            sums = sums + chunk if sums else chunk
            done += len(mirrored)
            self._report(number, done, sums)
            piece = following
        assert sums is not None  # there is at least one image
        return sums

    def _pieces(
        self, number: int, augmentation: Augmentation
    ) -> Iterator[tuple[Prefetched, Mirrored]]:
        """Cut an epoch into chunks; each is prefetched when it is taken."""
        indices, mirrored = order(self.state.seed, number, self.images, augmentation, self.balanced)
        batch, begun = self.recipe.batch_size, 0
        full = self.images // batch
        while begun < self.steps:
            # The last, smaller batch has a chunk of its own: a chunk is one rectangle of indices.
            most = max(1, min(self.chunks.size, self.train.most_images // batch))
            size = min(most, full - begun) if begun < full else 1
            here = slice(begun * batch, (begun + size) * batch)
            begun += size
            prefetched = self.train.prefetch(indices[here].reshape(size, -1))
            yield prefetched, mirrored[here].reshape(size, -1)

    def _report(self, number: int, step: int, sums: Sums) -> None:
        """Report how far the training is."""
        # The first chunk compiles, so its time says nothing about the time left.
        if self.on_progress and self.chunks.done > 1:
            self.on_progress(
                Progress(
                    epoch=number,
                    epochs=self.recipe.total_epochs,
                    step=step,
                    steps=self.steps,
                    loss=sums.mean_loss,
                    accuracy=sums.accuracy,
                    seconds_left=self.chunks.seconds_left,
                )
            )
