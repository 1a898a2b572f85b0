"""train: the splits and a recipe -> a model, tracked as an MLflow run as it goes."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from pipeline.artifacts.datasets import Splits, SplitsInfo
from pipeline.artifacts.files import atomic, sha256
from pipeline.artifacts.models import RunInfo, TrainedModel
from pipeline.artifacts.record import DeviceChoice
from pipeline.models.build import build, steps_are_small
from pipeline.models.plan import ModelPlan
from pipeline.tracking.describe import describe, used
from pipeline.tracking.run import Run
from pipeline.tracking.trainings import describe as describe_training
from pipeline.training.calibration import Calibration, calibrate
from pipeline.training.checkpoints.files import Slot
from pipeline.training.checkpoints.saving import Checkpoints
from pipeline.training.curves import draw_curves, draw_strengths
from pipeline.training.device import choose, make_deterministic
from pipeline.training.engine import Data
from pipeline.training.fitting import fit_tracked, on_features
from pipeline.training.history import History
from pipeline.training.resuming import key, run_of


def train(
    splits: Splits,
    plan: ModelPlan,
    output: Path,
    *,
    device: DeviceChoice = "auto",
    deterministic: bool = False,
    resume: bool = True,
) -> TrainedModel:
    """Train one model.

    Args:
        splits: the images to train and validate on.
        plan: the recipe.
        output: `models/<dataset>/<model>/`.
        device: `gpu` is refused before anything starts if there is no GPU.
        deterministic: whether the same seed gives the same weights on CPU.
        resume: whether to go on where the same training was interrupted, in the same MLflow run.

    Raises:
        TrainingError: no such device, a recipe that does not fit, a loss that is not finite, …;
            the MLflow run is marked FAILED, with the reason.
        TrackingError: the MLflow store cannot be reached.
    """
    info = splits.info
    chosen = choose(device, small_steps=steps_are_small(plan.recipe, info.image_shape))
    seed = plan.recipe.seed or 0
    if deterministic:
        make_deterministic(seed)
    # Recorded before training: this is the code that trains, even if it is edited meanwhile.
    trained = TrainedModel(output)
    provenance = describe(
        plan.recipe,
        deterministic=deterministic,
        device=str(chosen),
        hardware=chosen.hardware(),
    )
    data_md5 = splits.md5
    slot = Slot(key(plan, data_md5, provenance))
    with (
        Checkpoints(slot, resume=resume) as checkpoints,
        run_of(plan, checkpoints) as (run, interruptions),
    ):
        describe_training(run, splits, data_md5, plan.dataset, plan.model, provenance)
        model = build(plan.recipe, info.image_shape, info.num_classes, seed)
        run.log_text(_summary(model), "model_summary.txt")
        images = _data(splits, info)
        part, data, seconds = on_features(run, model, plan, images)
        history = fit_tracked(run, part, plan, data, deterministic, checkpoints)
        history = replace(history, features_seconds=seconds)
        run.log_params({"trained_in": history.precision})
        if history.agreement:
            run.log_params({"bfloat16_least_cosine": history.agreement})
        # What is served is calibrated: the views of an image, where it averages over several.
        views = plan.recipe.test_time_augmentation != "none"
        calibration = _calibrate(run, *((model, plan, images) if views else (part, plan, data)))
        _save(run, model, history, trained)
        provenance = used(provenance).model_copy(update={"interruptions": interruptions})
        provenance.save(trained.provenance)
        run.log_artifact(trained.provenance)
        RunInfo(
            run_id=run.run_id,
            experiment=plan.dataset,
            experiment_id=run.experiment_id,
            dataset=plan.dataset,
            model=plan.model,
            class_names=info.class_names,
            image_shape=info.image_shape,
            fit=info.fit,
            data_md5=data_md5,
            seed=seed,
            device=str(chosen),
            git_commit=provenance.code.commit,
            git_dirty=provenance.code.dirty,
            resumed=len(interruptions),
            **_conclude(run, model, history, calibration, trained),
        ).save(output / "run.json")
    return trained


def _summary(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(
        print_fn=lambda line, **_: lines.append(line), line_length=100, expand_nested=True
    )
    return "\n".join(lines)


def _data(splits: Splits, info: SplitsInfo) -> Data:
    return Data(
        x_train=splits.x("train"),
        y_train=splits.y("train"),
        x_val=splits.x("val"),
        y_val=splits.y("val"),
        class_names=info.class_names,
    )


def _calibrate(run: Run, model: keras.Model, plan: ModelPlan, data: Data) -> Calibration | None:
    """Fit the confidence of the model to the validation split; log what that changed."""
    if not plan.recipe.calibrate:
        return None
    found = calibrate(model, data.x_val, data.y_val)
    run.log_metrics(found.metrics)
    return found


def _save(run: Run, model: keras.Model, history: History, trained: TrainedModel) -> None:
    """Write the model and its history; log history and curves to the run."""
    with atomic(trained.model) as part:
        model.save(part)
    rows = pd.DataFrame([asdict(row) for row in history.epochs])
    with atomic(trained.history) as part:
        rows.to_csv(part, index=False)
    run.log_artifact(trained.history)
    with tempfile.TemporaryDirectory() as folder:
        draw_curves(Path(folder) / "curves.png", {str(name): rows[name].tolist() for name in rows})
        run.log_artifact(Path(folder) / "curves.png")
        if len(history.strengths) > 1:
            draw_strengths(Path(folder) / "strengths.png", history)
            run.log_artifact(Path(folder) / "strengths.png")
    if history.strengths:
        tried = rows.assign(l2=history.strengths).drop(columns=["epoch", "learning_rate"])
        run.log_text(tried.to_csv(index=False), "strengths.csv")
        run.log_params({"l2": history.strengths[history.epochs.index(history.kept)]})


def _conclude(
    run: Run,
    model: keras.Model,
    history: History,
    calibration: Calibration | None,
    trained: TrainedModel,
) -> dict[str, Any]:
    """Return the outcome of the training, and log it to the run."""
    seconds = round(history.features_seconds + sum(row.seconds for row in history.epochs), 2)
    outcome = {
        "parameters": model.count_params(),
        "epochs": len(history.epochs),
        "training_seconds": seconds,
    }
    kept = history.kept
    val_loss = calibration.after.loss if calibration else kept.val_loss
    run.log_metrics(
        {
            **outcome,
            "kept_epoch": kept.epoch,
            **({"stopped_epoch": len(history.epochs)} if history.stopped else {}),
            "best_val_accuracy": kept.val_accuracy,
            "best_val_loss": val_loss,
        }
    )
    digest = sha256(trained.model)
    run.log_tags({"model_sha256": digest})
    return {
        **outcome,
        "val_accuracy": kept.val_accuracy,
        "val_loss": val_loss,
        "calibration": calibration.metrics if calibration else {},
        "model_sha256": digest,
    }
