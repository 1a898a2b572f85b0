"""How a recipe is trained: on images or on features, step by step or all at once."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from pipeline.models.plan import ModelPlan
from pipeline.models.recipes import Augmentation
from pipeline.tracking.run import Run
from pipeline.training.backends.augment import augment, draws_of
from pipeline.training.backends.mixing import mix
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.curves import draw_augmented
from pipeline.training.engine import Data, fit
from pipeline.training.features.frozen import features_of, has_fixed_features
from pipeline.training.feed import order
from pipeline.training.history import Epoch, History, Progress
from pipeline.training.logistic import fit_softmax, strengths
from pipeline.training.progress import TrainProgress, features_progress
from pipeline.training.resuming import EpochLog, log_epoch

_SHOWN = 32  # training images in a figure


def on_features(
    run: Run, model: keras.Model, plan: ModelPlan, data: Data
) -> tuple[keras.Model, Data, float]:
    """Return what is trained and on what: where features are computed once, the head on those.

    Returns:
        The model or its head, images or features, and the seconds that the features took.
    """
    if not has_fixed_features(plan.recipe):
        return model, data, 0.0
    images = len(data.x_train) + len(data.x_val)
    with features_progress(f"{plan.dataset} {plan.model}", images) as advance:
        found = features_of(model, data, advance)
    run.log_metrics({"features_computed": found.computed, "features_seconds": found.seconds})
    return found.head, found.data, found.seconds


def fit_tracked(
    run: Run,
    model: keras.Model,
    plan: ModelPlan,
    data: Data,
    deterministic: bool,
    checkpoints: Checkpoints,
) -> History:
    """Fit the model; log every epoch to the run and show the progress."""
    if plan.recipe.fits_only_the_softmax:
        return _fit_softmax(run, model, plan, data)
    return _fit_steps(run, model, plan, data, deterministic, checkpoints)


def _fit_softmax(run: Run, model: keras.Model, plan: ModelPlan, data: Data) -> History:
    """Fit the softmax layer; log every strength to the run and show the progress."""
    name = f"{plan.dataset} {plan.model}"
    with TrainProgress(name, len(strengths(plan.recipe))) as progress:

        def on_epoch(row: Epoch) -> None:
            progress.on_epoch(row)
            log_epoch(run, row)

        return fit_softmax(model, plan.recipe, data, on_epoch=on_epoch)


def _fit_steps(
    run: Run,
    model: keras.Model,
    plan: ModelPlan,
    data: Data,
    deterministic: bool,
    checkpoints: Checkpoints,
) -> History:
    # JAX compiles each operation of the figure alone, which takes some seconds.
    shows = keras.backend.backend() != "jax" and not checkpoints.found
    if shows and plan.recipe.augmentation != Augmentation():
        _log_augmented(run, plan, data)
    done = checkpoints.found.snapshot.epoch if checkpoints.found else 0
    name, epochs = f"{plan.dataset} {plan.model}", plan.recipe.total_epochs
    with TrainProgress(name, epochs, done) as progress, EpochLog(run, checkpoints) as log:

        def on_epoch(row: Epoch) -> None:
            progress.on_epoch(row)
            log.add(row)

        def on_progress(now: Progress) -> None:
            progress.on_progress(now)
            log.send()

        history = fit(
            model,
            plan.recipe,
            data,
            seed=plan.recipe.seed or 0,
            deterministic=deterministic,
            checkpoints=checkpoints,
            on_epoch=on_epoch,
            on_progress=on_progress,
        )
        progress.finish(history)
        return history


def _log_augmented(run: Run, plan: ModelPlan, data: Data) -> None:
    """Log the first images of the first epoch, changed as its steps do, by other numbers."""
    recipe = plan.recipe
    augmentation, seed = recipe.augmentation, recipe.seed or 0
    balanced = data.y_train if recipe.sampling == "balanced" else None
    indices, mirrored = (
        each[:_SHOWN] for each in order(seed, 1, len(data.x_train), augmentation, balanced)
    )
    shape = draws_of(augmentation), len(indices)
    draws = np.random.default_rng(seed).random(shape, dtype=np.float32)
    images = augment(np.take(data.x_train, indices, axis=0), augmentation, draws, mirrored)
    labels, classes = data.y_train[indices].astype(np.int32), len(data.class_names)
    images, *_ = mix(images, labels, augmentation, draws[-4:], classes)
    with tempfile.TemporaryDirectory() as folder:
        draw_augmented(Path(folder) / "augmented.png", np.asarray(images))
        run.log_artifact(Path(folder) / "augmented.png")
