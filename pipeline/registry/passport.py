"""The passport of a model: everything that made it, in one file that goes wherever it goes."""

import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.artifacts.datasets import Splits, SplitsInfo
from pipeline.artifacts.files import sha256
from pipeline.artifacts.models import Evaluation, RunInfo, Slice, TrainedModel
from pipeline.artifacts.record import Frozen, Record
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.errors import ArtifactError
from pipeline.guarantee.guarantee import Guarantee
from pipeline.images import as_base64_png
from pipeline.tracking.provenance import Provenance

FILE_NAME = "passport.json"
DVC_LOCK = Path("dvc.lock")
# Images in a passport, which a smoke test asks about before a version serves.
EXAMPLES = 8


class Validation(Frozen):
    """What the checks of the raw data found."""

    raw_md5: str
    passed: bool
    results: tuple[CheckResult, ...]


class Example(Frozen):
    """An image of the test split and what the model predicts for it; enough for a smoke test.

    Attributes:
        png: base64 of the image.
        probabilities: one per class.
    """

    png: str
    label: int
    probabilities: tuple[float, ...]


class Derivation(Frozen):
    """Which version a version was made from without training.

    Attributes:
        version: of the same registered model.
        by: the command that made it.
    """

    version: int
    by: str


class Passport(Record):
    """`passport.json`, stored with every registered model.

    Attributes:
        name: the registered model's, which is the dataset's.
        run: the MLflow run, and the sha256 of the model file.
        data: the md5 of every processed array and of the raw data, and the sources they came from.
        metrics: the metrics of the test split by name; `<name>_low` and `<name>_high` are the
            95% interval of `<name>`.
        classes: the metrics of each class.
        slices: the accuracy on parts of the test split, the worst first; empty in passports from
            before there were any.
        examples: what the model must predict wherever it is loaded.
        registered_at: UTC, ISO 8601.
        images_sha256: the sha256 of `images.npz`; empty in passports from before there was one.
        derived_from: None where it was trained.
        files: the sha256 of each file beside those that every version has, by name.
        guarantee: when it answers; None where it answers always.
    """

    name: str
    run: RunInfo
    provenance: Provenance
    data: SplitsInfo
    validation: Validation
    dvc_lock: str
    metrics: dict[str, float]
    classes: dict[str, dict[str, float]]
    slices: tuple[Slice, ...] = ()
    examples: tuple[Example, ...]
    registered_at: str
    images_sha256: str = ""
    derived_from: Derivation | None = None
    files: dict[str, str] = Field(default_factory=dict)
    guarantee: Guarantee | None = None

    @property
    def test_md5(self) -> str:
        """The md5 of the test split: images and labels."""
        return test_md5(self.data)

    @property
    def training_code(self) -> dict[str, str]:
        """The md5 of each source file that trained the model."""
        return self.provenance.sources or training_code(self.dvc_lock, self.run.model)

    @property
    def ingredients_digest(self) -> str:
        """The md5 of recipe, data and training code; models that share it differ by chance alone.

        The seed is not part of it.
        """
        recipe = self.provenance.recipe.model_dump(mode="json", exclude={"seed"})
        ingredients = [recipe, self.data.md5, self.training_code]
        return hashlib.md5(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()

    def missing(self) -> tuple[str, ...]:
        """Name the parts that are not known; a model lacking one is not registered."""
        code, environment = self.provenance.code, self.provenance.environment
        parts: dict[str, Any] = {
            "the sources of the data": self.data.origin,
            "the md5 of the raw data": self.data.raw_md5,
            "the md5 of the processed data": self.run.data_md5,
            "the results of the validation": self.validation.results,
            "the git commit": code.commit,
            "the git branch": code.branch,
            "whether the tree was dirty": code.dirty is not None,
            "the diff of a dirty tree": code.diff or not code.dirty,
            "a lock file of the requirements": code.lockfiles,
            "the installed packages": environment.packages,
            "the hardware": environment.hardware,
            "params.yaml": self.provenance.params_yaml,
            "dvc.lock": self.dvc_lock,
            "the MLflow run": self.run.run_id,
            "the metrics": self.metrics,
            "the interval of the accuracy": "accuracy_low" in self.metrics,
            "the metrics of each class": self.classes,
            "the sha256 of the model file": self.run.model_sha256,
            "examples": self.examples,
        }
        return tuple(part for part, known in parts.items() if not known)


def test_md5(data: SplitsInfo) -> str:
    """Return one md5 for the images and the labels of the test split."""
    pair = [data.md5.get(f"{array}_test.npy", "") for array in ("x", "y")]
    return hashlib.md5(" ".join(pair).encode()).hexdigest()


def training_code(dvc_lock: str, model: str) -> dict[str, str]:
    """Return the md5 of the code that the training of a model depended on, from dvc.lock.

    It is asked for models from before provenance listed the files.

    Raises:
        ArtifactError: dvc.lock is torn.
    """
    try:
        lock = YAML(typ="safe").load(io.StringIO(dvc_lock)) or {}
        stage = lock.get("stages", {}).get(f"train@{model}", {})
        return {
            dep["path"]: dep["md5"]
            for dep in stage.get("deps", [])
            if dep["path"].startswith("pipeline/")
        }
    except (YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(
            "dvc.lock is torn: DVC was ended while it wrote it; `make run` sets it aside"
        ) from error


def passport_of(folder: Path) -> Passport:
    """Read the passport of a model's folder.

    Raises:
        ArtifactError: it has none, or the file is torn.
    """
    return Passport.load(folder / FILE_NAME)


def make_passport(
    trained: TrainedModel,
    evaluation: Evaluation,
    splits: Splits,
    validation: ValidationReport,
    images: Path,
) -> Passport:
    """Gather what made a model, and what it predicts for some images.

    Args:
        trained: the model.
        evaluation: its evaluation.
        splits: the data that it was trained on.
        validation: what the checks of the raw data found.
        images: the file that says which images these are.

    Raises:
        ArtifactError: a part is missing, or torn.
    """
    dvc_lock = DVC_LOCK.read_text() if DVC_LOCK.exists() else ""
    training_code(dvc_lock, trained.run.model)  # raises where it is torn
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
        slices=evaluation.slices,
        examples=tuple(
            Example(
                png=as_base64_png(x_test[row]),
                label=int(y_test[row]),
                probabilities=tuple(map(float, evaluation.probabilities[row])),
            )
            for row in range(min(EXAMPLES, len(x_test)))
        ),
        registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        images_sha256=sha256(images),
    )
    if missing := passport.missing():
        raise ArtifactError(
            f"{trained.path} cannot be registered, as its passport lacks {', '.join(missing)}; "
            "work in a git repository with a commit, and run all stages: dvc repro"
        )
    return passport
