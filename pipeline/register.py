"""register: the models that were evaluated -> a version of the best one in the MLflow registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import promotion
from pipeline.artifacts import Evaluation, ModelVersion, Splits, TrainedModel
from pipeline.errors import ArtifactError, TrackingError
from pipeline.images import as_base64_png
from pipeline.params import Floors
from pipeline.tracking import registry
from pipeline.tracking.runs import existing_run
from pipeline.tracking.store import reaching

# Enough to notice a model that is not the one that was evaluated.
IMAGES_TO_REPRODUCE = 512
TOLERANCE = 1e-4


def register(
    models: Mapping[str, tuple[TrainedModel, Evaluation]],
    splits: Splits,
    floors: Floors,
    output: Path,
    auto_promote: bool = True,
) -> ModelVersion:
    """Register the model that is best on validation, unless that was done before.

    Args:
        models: by name, what was trained and how it was evaluated.
        splits: the data; its test split must be predicted as it was in the evaluation.
        floors: what the first version in production must reach.
        output: `reports/<dataset>/registered.json`.
        auto_promote: whether the first version goes into production by itself.

    Raises:
        ArtifactError: an evaluation is of another model than the one that is there.
        TrackingError: the store cannot be reached, or what it holds predicts something else.
    """
    best = promotion.best([_candidate(*pair) for pair in models.values()])
    trained, evaluation = models[best.name]
    run, dataset = trained.run, splits.info.name
    existing_run(run.run_id, f"dvc repro --force train@{best.name}")
    version = registry.find_version(dataset, run.run_id, run.model_sha256)
    if version is None:
        uri = registry.log_model(trained, splits.x("test")[0])
        _check_it_reproduces(registry.load(uri), splits, evaluation)
        version = registry.create_version(dataset, uri, run.run_id, _tags(trained, best))
    holders = registry.alias_holders(dataset)
    has_production = promotion.PRODUCTION in holders
    for alias in promotion.aliases_for(best, floors, has_production, auto_promote):
        registry.set_alias(dataset, alias, version.version)
        holders[alias] = version.version
    made = ModelVersion(
        name=dataset,
        version=version.version,
        model=best.name,
        run_id=run.run_id,
        aliases=tuple(sorted(a for a, number in holders.items() if number == version.version)),
        val_accuracy=run.val_accuracy,
        test_accuracy=best.test_accuracy,
        model_sha256=run.model_sha256,
        shortfalls=promotion.missed_floors(best, floors),
    )
    made.save(output)
    return made


def _candidate(trained: TrainedModel, evaluation: Evaluation) -> promotion.Candidate:
    metrics, run = evaluation.metrics, trained.run
    if metrics["run_id"] != run.run_id:
        raise ArtifactError(
            f"{evaluation.path} is of run {metrics['run_id']}, {trained.path} of {run.run_id}; "
            f"evaluate it again: dvc repro evaluate@{run.model}"
        )
    return promotion.Candidate(
        name=run.model,
        parameters=run.parameters,
        val_accuracy=run.val_accuracy,
        test_accuracy=metrics["accuracy"],
        test_recall=metrics["recall_lowest"],
    )


def _tags(trained: TrainedModel, candidate: promotion.Candidate) -> dict[str, Any]:
    run = trained.run
    return {
        "dataset_md5": run.data_md5,
        "git_commit": run.git_commit,
        "git_dirty": run.git_dirty,
        "run_id": run.run_id,
        "model": run.model,
        "model_sha256": run.model_sha256,
        "val_accuracy": f"{candidate.val_accuracy:.4f}",
        "test_accuracy": f"{candidate.test_accuracy:.4f}",
    }


def _check_it_reproduces(served: Any, splits: Splits, evaluation: Evaluation) -> None:
    """Hold the served model against the evaluation: as pixels all, as an image file the first."""
    images = splits.x("test")[:IMAGES_TO_REPRODUCE]
    rows = [as_base64_png(images[0]), *images]
    with reaching("ask the model that was logged"):
        answer = served.predict(pd.DataFrame({"image": rows}))
    said = np.stack(answer["probabilities"].to_list())
    expected = evaluation.probabilities[: len(images)]
    apart = float(np.abs(said - np.concatenate([expected[:1], expected])).max())
    if not apart <= TOLERANCE:
        raise TrackingError(
            f"the model that was logged does not reproduce the evaluation: probabilities differ "
            f"by {apart:.2g}, allowed: {TOLERANCE:g}; it is not registered"
        )
