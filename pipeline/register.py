"""register: the models that were evaluated -> a version of the best one in the MLflow registry."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from pipeline import promotion
from pipeline.artifacts import Evaluation, ModelVersion, Splits, TrainedModel, ValidationReport
from pipeline.errors import ArtifactError, TrackingError
from pipeline.files import sha256
from pipeline.images import as_base64_png
from pipeline.params import Floors
from pipeline.passport import FILE_NAME, Example, Passport, Provenance, Validation
from pipeline.tracking import registry
from pipeline.tracking.runs import existing_run
from pipeline.tracking.store import reaching

# Enough to notice a model that is not the one that was evaluated.
IMAGES_TO_REPRODUCE = 512
TOLERANCE = 1e-4
# What a smoke test asks of a model before it serves.
EXAMPLES = 8
DVC_LOCK = Path("dvc.lock")


def register(
    models: Mapping[str, tuple[TrainedModel, Evaluation]],
    splits: Splits,
    validation: ValidationReport,
    floors: Floors,
    output: Path,
    auto_promote: bool = True,
) -> ModelVersion:
    """Register the model that is best on validation, unless that was done before.

    Args:
        models: by name, what was trained and how it was evaluated.
        splits: the data; its test split must be predicted as it was in the evaluation.
        validation: what the checks of the raw data found.
        floors: what the first version in production must reach.
        output: `reports/<dataset>/registered.json`.
        auto_promote: whether the first version goes into production by itself.

    Raises:
        ArtifactError: an evaluation is of another model than the one that is there, or a part of
            what made the model is not known.
        TrackingError: the store cannot be reached, or what it holds predicts something else.
    """
    best = promotion.best([_candidate(*pair) for pair in models.values()])
    trained, evaluation = models[best.name]
    run, dataset = trained.run, splits.info.name
    existing_run(run.run_id, f"dvc repro --force train@{best.name}")
    version = registry.find_version(dataset, run.run_id, run.model_sha256)
    if version is None:
        passport = make_passport(trained, evaluation, splits, validation)
        with TemporaryDirectory() as folder:
            file = Path(folder) / FILE_NAME
            passport.save(file)
            uri = registry.log_model(trained, file, splits.x("test")[0])
            tags = _tags(passport, best) | {"passport_sha256": sha256(file)}
        _check_it_reproduces(registry.load(uri), splits, evaluation)
        version = registry.create_version(dataset, uri, run.run_id, tags)
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


def make_passport(
    trained: TrainedModel, evaluation: Evaluation, splits: Splits, validation: ValidationReport
) -> Passport:
    """Gather what made a model, and what it says of some images.

    Raises:
        ArtifactError: a part is missing.
    """
    x_test, y_test = splits.x("test"), splits.y("test")
    passport = Passport(
        name=splits.info.name,
        run=trained.run,
        provenance=Provenance.load(trained.provenance),
        data=splits.info,
        validation=Validation(
            raw_md5=validation.raw_md5, passed=validation.passed, results=validation.results
        ),
        dvc_lock=DVC_LOCK.read_text() if DVC_LOCK.exists() else "",
        metrics={k: v for k, v in evaluation.metrics.items() if isinstance(v, int | float)},
        classes=evaluation.classes,
        examples=tuple(
            Example(
                png=as_base64_png(x_test[row]),
                label=int(y_test[row]),
                probabilities=tuple(map(float, evaluation.probabilities[row])),
            )
            for row in range(min(EXAMPLES, len(x_test)))
        ),
        registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if missing := passport.missing():
        raise ArtifactError(
            f"{trained.path} cannot be registered, as its passport lacks {', '.join(missing)}; "
            "work in a git repository with a commit, and run all stages: dvc repro"
        )
    return passport


def _tags(passport: Passport, candidate: promotion.Candidate) -> dict[str, Any]:
    run = passport.run
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
