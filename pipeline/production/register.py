"""register: the models that were evaluated -> a version of the best one in the MLflow registry."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from pipeline.artifacts.datasets import Splits
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import Evaluation, ModelVersion, TrainedModel
from pipeline.artifacts.validation import ValidationReport
from pipeline.errors import ArtifactError, TrackingError
from pipeline.evaluation.litert import read_checked
from pipeline.images import as_base64_png
from pipeline.production import gate, promotion
from pipeline.production.production import Outcome, promote
from pipeline.production.rules import Rules
from pipeline.registry import versions as registry
from pipeline.registry.ledger_run import Conflict
from pipeline.registry.passport import FILE_NAME, Example, Passport, Validation, training_code
from pipeline.registry.versions import Registered
from pipeline.tracking.provenance import Provenance
from pipeline.tracking.recorded import run_of
from pipeline.tracking.store import in_turn

# What a smoke test asks of a model before it serves.
EXAMPLES = 8
DVC_LOCK = Path("dvc.lock")
# So often the gate is asked again because another run has promoted its own version meanwhile.
ATTEMPTS = 10
# A version, its passport, and the folder of the plots of its evaluation.
Publish = Callable[[Registered, Passport, Path], None]


def register(
    models: Mapping[str, tuple[TrainedModel, Evaluation]],
    splits: Splits,
    validation: ValidationReport,
    rules: Rules,
    output: Path,
    auto_promote: bool = True,
    *,
    publish: Publish,
) -> ModelVersion:
    """Register the model that is best on validation, unless that was done before.

    Runs that the store lacks, as that of a clone does which has pulled the models, are recorded
    again from what is here.

    It gets a model card, and is the challenger; it goes into production if it passes the gate and
    nobody has to agree.

    Args:
        models: by name, what was trained and how it was evaluated.
        splits: the data; its test split must be predicted as it was in the evaluation.
        validation: what the checks of the raw data found.
        rules: what the gate asks.
        output: `reports/<dataset>/registered.json`.
        auto_promote: whether a version that passes goes into production by itself.
        publish: writes the model card of the version; `reports.card` has it.

    Raises:
        ArtifactError: an evaluation is of another model than the one that is there, or a part of
            what made the model is not known.
        TrackingError: the store cannot be reached, or what it holds predicts something else.
    """
    best = promotion.best([_contender(*pair) for pair in models.values()])
    trained, evaluation = models[best.name]
    by_itself = auto_promote and not rules.require_approval
    with in_turn():
        runs = {name: run_of(row[0], splits, row[1]).run_id for name, row in models.items()}
        version = _find_or_create(runs[best.name], trained, evaluation, splits, validation)
        publish(version, registry.read_passport(version), evaluation.path / "plots")
        registry.set_alias(version.name, promotion.CHALLENGER, version.version)
        outcome = _ask_the_gate(version, splits, rules, only_ask=not by_itself)
        aliases = registry.find(version.spec).aliases
    run = trained.run
    made = ModelVersion(
        name=version.name,
        version=version.version,
        model=best.name,
        run_id=version.run_id,
        aliases=aliases,
        val_accuracy=run.val_accuracy,
        test_accuracy=evaluation.metrics["accuracy"],
        model_sha256=run.model_sha256,
        shortfalls=_shortfalls(outcome, by_itself),
    )
    made.save(output)
    return made


@retry(retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(ATTEMPTS), reraise=True)
def _ask_the_gate(version: Registered, splits: Splits, rules: Rules, *, only_ask: bool) -> Outcome:
    return promote(version, splits, rules, only_ask=only_ask)


def _contender(trained: TrainedModel, evaluation: Evaluation) -> promotion.Contender:
    evaluated, run = evaluation.metrics["run_id"], trained.run
    if evaluated != run.run_id:
        raise ArtifactError(
            f"{evaluation.path} is of run {evaluated}, {trained.path} of {run.run_id}; "
            f"evaluate it again: dvc repro evaluate@{run.model}"
        )
    return promotion.Contender(run.model, run.parameters, run.val_accuracy)


def _find_or_create(
    run_id: str,
    trained: TrainedModel,
    evaluation: Evaluation,
    splits: Splits,
    validation: ValidationReport,
) -> Registered:
    """Return the version that a run of this store has made, which is made where there is none."""
    name = splits.info.name
    version = registry.find_version(name, run_id, trained.run.model_sha256)
    if version is not None:
        return version
    passport = make_passport(trained, evaluation, splits, validation)
    read_checked(trained)
    with TemporaryDirectory() as folder:
        file = Path(folder) / FILE_NAME
        passport.save(file)
        uri = registry.log_model(trained, run_id, file, splits.x("test")[0])
        tags = _tags(passport) | {
            "passport_sha256": sha256(file),
            "portable_sha256": sha256(trained.litert),
        }
    apart = gate.apart(uri, splits, evaluation.probabilities)
    if not apart <= promotion.SAME:
        raise TrackingError(
            f"the model that was logged does not reproduce the evaluation: probabilities differ "
            f"by {apart:.2g}, allowed: {promotion.SAME:g}; it is not registered"
        )
    return registry.create_version(name, uri, run_id, tags)


def _shortfalls(outcome: Outcome, by_itself: bool) -> tuple[str, ...]:
    """Say why a version is not in production."""
    if outcome.decision is not None and outcome.decision.failures:
        return outcome.decision.failures
    if outcome.action == "would pass" and not by_itself:
        return (f"it would pass, but nobody has promoted it: pipeline promote {_where(outcome)}",)
    return ()


def _where(outcome: Outcome) -> str:
    return f"{outcome.version.name} {outcome.version.version}"


def make_passport(
    trained: TrainedModel, evaluation: Evaluation, splits: Splits, validation: ValidationReport
) -> Passport:
    """Gather what made a model, and what it says of some images.

    Raises:
        ArtifactError: a part is missing, or torn.
    """
    dvc_lock = DVC_LOCK.read_text() if DVC_LOCK.exists() else ""
    training_code(dvc_lock, trained.run.model)  # can it be read?
    x_test, y_test = splits.x("test"), splits.y("test")
    passport = Passport(
        name=splits.info.name,
        run=trained.run,
        provenance=Provenance.load(trained.provenance),
        data=splits.info,
        validation=Validation(
            raw_md5=validation.raw_md5, passed=validation.passed, results=validation.results
        ),
        dvc_lock=dvc_lock,
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


def _tags(passport: Passport) -> dict[str, Any]:
    """Return what a version is found and checked by."""
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
