"""How a recipe is trained: on images or on features, step by step or all at once."""

from dataclasses import asdict

import keras

from pipeline.models.plan import ModelPlan
from pipeline.tracking.run import Run
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.engine import Data, fit
from pipeline.training.features.frozen import features_of, has_fixed_features
from pipeline.training.history import Epoch, History, Progress
from pipeline.training.logistic import fit_softmax, strengths
from pipeline.training.progress import TrainProgress, features_progress
from pipeline.training.resuming import EpochLog


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
            values = asdict(row)
            run.log_metrics(values, step=values.pop("epoch"))

        return fit_softmax(model, plan.recipe, data, on_epoch=on_epoch)


def _fit_steps(
    run: Run,
    model: keras.Model,
    plan: ModelPlan,
    data: Data,
    deterministic: bool,
    checkpoints: Checkpoints,
) -> History:
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
