"""register: the models that were evaluated -> a version of the best one in the MLflow registry."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import Evaluation, ModelVersion, RunInfo, TrainedModel
from pipeline.artifacts.validation import ValidationReport
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.litert import read_checked
from pipeline.production.asking import max_difference
from pipeline.production.findings import MAX_DIFFERENCE
from pipeline.production.promote import Promotion, promote
from pipeline.production.rules import Thresholds
from pipeline.registry import logged_model, model_files, version_images, versions
from pipeline.registry.ledger import Action
from pipeline.registry.ledger_run import Conflict
from pipeline.registry.passport import FILE_NAME, Passport, make_passport
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import CHALLENGER, Registered
from pipeline.tracking.recorded import check_data, run_of
from pipeline.tracking.store import in_turn

# How often the gate is asked while other runs promote their own versions meanwhile.
ATTEMPTS = 10
# A version, its passport, and the folder of the plots of its evaluation.
Publish = Callable[[Registered, Passport, Path], None]


def register(
    models: Mapping[str, tuple[TrainedModel, Evaluation]],
    splits: Splits,
    validation: ValidationReport,
    thresholds: Thresholds,
    output: Path,
    auto_promote: bool = True,
    *,
    publish: Publish,
) -> ModelVersion:
    """Register the model that is best on validation, unless that was done before.

    The store of a clone that has pulled the models lacks their runs: they are recorded again from
    the files that are here.

    The version gets a model card and is the challenger; it goes into production if it passes the
    gate and nobody has to agree.

    Args:
        models: what was trained and how it was evaluated, by name.
        splits: the data; the test split must be predicted as it was in the evaluation.
        validation: what the checks of the raw data found.
        thresholds: the thresholds of the gate.
        output: `reports/<dataset>/registered.json`.
        auto_promote: whether a version that passes the gate goes into production at once.
        publish: writes the model card of the version; `reports.card` has it.

    Raises:
        ArtifactError: an evaluation is of another model than the one that is there, the data is
            not what the model was trained on, or a part of the passport is not known.
        TrackingError: the store cannot be reached, or the model in it predicts something else.
    """
    run = best([_evaluated_run(*pair) for pair in models.values()])
    trained, evaluation = models[run.model]
    with in_turn():
        runs = {name: run_of(row[0], splits, row[1]).run_id for name, row in models.items()}
        version = _find_or_create(runs[run.model], trained, evaluation, splits, validation)
        publish(version, model_files.read_passport(version), evaluation.path / "plots")
        versions.set_alias(version.name, CHALLENGER, version.version)
        dry_run = not auto_promote or thresholds.require_approval
        promotion = _promote(version, splits, thresholds, dry_run=dry_run)
        aliases = versions.find(version.spec).aliases
    made = ModelVersion(
        name=version.name,
        version=version.version,
        model=run.model,
        run_id=version.run_id,
        aliases=aliases,
        val_accuracy=run.val_accuracy,
        test_accuracy=evaluation.metrics["accuracy"],
        model_sha256=run.model_sha256,
        shortfalls=_shortfalls(promotion),
    )
    made.save(output)
    return made


def best(runs: Iterable[RunInfo]) -> RunInfo:
    """Choose on validation; between equals the smaller model, then the first by name."""
    return min(runs, key=lambda run: (-run.val_accuracy, run.parameters, run.model))


@retry(retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(ATTEMPTS), reraise=True)
def _promote(
    version: Registered, splits: Splits, thresholds: Thresholds, *, dry_run: bool
) -> Promotion:
    return promote(version, splits, thresholds, dry_run=dry_run)


def _evaluated_run(trained: TrainedModel, evaluation: Evaluation) -> RunInfo:
    evaluated, run = evaluation.metrics["run_id"], trained.run
    if evaluated != run.run_id:
        raise ArtifactError(
            f"{evaluation.path} is of run {evaluated}, {trained.path} of {run.run_id}; "
            f"evaluate it again: dvc repro evaluate@{run.model}"
        )
    return run


def _find_or_create(
    run_id: str,
    trained: TrainedModel,
    evaluation: Evaluation,
    splits: Splits,
    validation: ValidationReport,
) -> Registered:
    """Return the version of a run; it is created where there is none."""
    name = splits.info.name
    version = versions.find_version(name, run_id, trained.run.model_sha256)
    if version is not None:
        return version
    check_data(trained, splits)
    read_checked(trained)
    with TemporaryDirectory() as folder:
        file, images = Path(folder) / FILE_NAME, Path(folder) / version_images.FILE_NAME
        VersionImages.of(splits).save(images)
        passport = make_passport(trained, evaluation, splits, validation, images)
        passport.save(file)
        uri = logged_model.log_model(trained, run_id, file, images, passport.examples[0].png)
        tags = _tags(passport) | {
            "passport_sha256": sha256(file),
            "images_sha256": passport.images_sha256,
            "portable_sha256": sha256(trained.litert),
        }
    difference = max_difference(uri, splits, evaluation.probabilities)
    if not difference <= MAX_DIFFERENCE:
        raise TrackingError(
            f"the model that was logged does not reproduce the evaluation: probabilities differ "
            f"by {difference:.2g}, allowed: {MAX_DIFFERENCE:g}; it is not registered"
        )
    return versions.create_version(name, uri, run_id, tags)


def _shortfalls(promotion: Promotion) -> tuple[str, ...]:
    """Say why a version is not in production."""
    if promotion.action == Action.WOULD_PASS:
        version = promotion.version
        command = f"pipeline promote {version.name} {version.version}"
        return (f"it passes the gate, but nobody has promoted it: {command}",)
    return promotion.decision.failures if promotion.decision else ()


def _tags(passport: Passport) -> dict[str, Any]:
    """Return the tags that a version is found and checked by."""
    run = passport.run
    return {
        "dataset_md5": run.data_md5,
        "git_commit": run.git_commit,
        "git_dirty": run.git_dirty,
        "run_id": run.run_id,
        "model": run.model,
        "model_sha256": run.model_sha256,
        "val_accuracy": f"{run.val_accuracy:.4f}",
        "test_accuracy": f"{passport.metrics['accuracy']:.4f}",
    }
