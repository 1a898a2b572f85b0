"""One of the models that are compared: what it is, what it says of the test split, what made it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.artifacts.models import Evaluation, TrainedModel
from pipeline.errors import ArtifactError, ParamsError
from pipeline.evaluation.predictions import Predictions
from pipeline.registry import versions as registry
from pipeline.registry.versions import Registered
from pipeline.reports.comparing.changes import Origin, from_run
from pipeline.reports.comparing.predictions import read_history, read_predictions
from pipeline.tracking import evaluations
from pipeline.tracking.provenance import Provenance
from pipeline.workspace import Workspace

RUN_ID = re.compile(r"[0-9a-f]{32}")
ALLOWED = "<name>@<alias>, <name>/<version>, an MLflow run id, or a folder models/<dataset>/<model>"


@dataclass(frozen=True)
class Side:
    """One of two models.

    Attributes:
        spec: what it is called here: `<name>/<version>`, a run id or a folder.
        model: the name of its recipe.
        aliases: that point at it; empty of what is not registered.
        metrics: of the test split, and what training knows.
        history: the columns of `history.csv`.
        data_md5: DVC's md5 of the processed data.
        test_md5: of the test split; None where only a passport would tell it.
    """

    spec: str
    run_id: str
    experiment_id: str | None
    dataset: str
    model: str
    aliases: tuple[str, ...]
    predictions: Predictions
    metrics: Mapping[str, float]
    history: Mapping[str, tuple[float, ...]]
    origin: Origin
    data_md5: str
    test_md5: str | None

    @property
    def slug(self) -> str:
        """A short name that can be part of a file's."""
        if RUN_ID.fullmatch(self.spec):
            return self.spec[:8]
        # Of a folder, wherever it is, the dataset and the model.
        words = re.sub(r"[^\w.-]+", "-", "-".join(self.spec.split("/")[-2:]))
        return words.strip("-.") or self.run_id[:8]


def load(spec: str) -> Side:
    """Find one of the models and read all that is kept of it.

    Args:
        spec: `<name>@<alias>`, `<name>/<version>`, an MLflow run id, or the path of a
            `models/<dataset>/<model>`.

    Raises:
        ParamsError: it is none of these.
        TrackingError: the store cannot be reached, or lacks it or its evaluation.
        ArtifactError: a file of it is missing or is not what it should be.
    """
    path = Path(spec)
    path = path.parent if path.suffix == ".keras" else path
    if (path / "run.json").exists():
        return _from_folder(path)
    if RUN_ID.fullmatch(spec):
        return _from_run(spec, spec, None)
    if path.is_dir() or spec.count("/") > 1:
        raise ArtifactError(f"{spec} holds no trained model (no run.json); train one: dvc repro")
    if "@" not in spec and "/" not in spec:
        raise ParamsError(f"{spec!r} is no model; allowed: {ALLOWED}")
    version = registry.find(spec)
    return _from_run(version.spec, version.run_id, version)


def _from_run(spec: str, run_id: str, version: Registered | None) -> Side:
    """Read what a run keeps; of a registered version, the passport as well."""
    if not run_id:
        raise ArtifactError(f"{spec} was registered without a run: nothing is known of it")
    has_passport = version is not None and "passport_sha256" in version.tags
    passport = registry.read_passport(version) if version and has_passport else None
    with TemporaryDirectory() as folder:
        found = evaluations.fetch(run_id, Path(folder))
        file = found.folder / evaluations.PROVENANCE
        provenance = Provenance.load(file) if file.exists() else None
        return Side(
            spec=spec,
            run_id=run_id,
            experiment_id=found.experiment_id,
            dataset=found.tags.get("dataset", version.name if version else "unknown"),
            model=found.tags.get("model", "unknown"),
            aliases=version.aliases if version else (),
            predictions=read_predictions(found.folder / evaluations.EVALUATION),
            metrics=_numbers(Evaluation(found.folder / evaluations.EVALUATION)),
            history=read_history(found.folder / evaluations.HISTORY),
            origin=from_run(found.tags, provenance, passport),
            data_md5=found.tags.get("data_md5", "unknown"),
            test_md5=passport.test_md5 if passport else None,
        )


def _from_folder(path: Path) -> Side:
    """Read the files of a `models/<dataset>/<model>` and its evaluation beside it."""
    trained = TrainedModel(path)
    run = trained.run
    root = path.absolute().parents[2]
    evaluation = Workspace(run.dataset, root).evaluation(run.model)
    if evaluation.metrics["run_id"] != run.run_id:
        raise ArtifactError(
            f"{evaluation.path} is of run {evaluation.metrics['run_id']}, {path} of {run.run_id}; "
            f"evaluate it again: dvc repro evaluate@{run.model}"
        )
    tags = {"data_md5": run.data_md5, "device": run.device}
    return Side(
        spec=path.as_posix(),
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        dataset=run.dataset,
        model=run.model,
        aliases=(),
        predictions=read_predictions(evaluation.path),
        metrics=_numbers(evaluation),
        history=read_history(trained.history),
        origin=from_run(tags, Provenance.load(trained.provenance), None),
        data_md5=run.data_md5,
        test_md5=None,
    )


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    return {k: float(v) for k, v in evaluation.metrics.items() if isinstance(v, int | float)}
