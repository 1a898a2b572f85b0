"""The path of each artifact below the repository's root, as dvc.yaml names them."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts.datasets import RawDataset, Splits
from pipeline.artifacts.models import Evaluation, ModelVersion, TrainedModel
from pipeline.artifacts.validation import ValidationReport


@dataclass(frozen=True)
class Workspace:
    """The folders of one dataset."""

    dataset: str
    root: Path = Path()

    @property
    def plan(self) -> Path:
        """`plan/<dataset>/`."""
        return self.root / "plan" / self.dataset

    @property
    def dataset_plan(self) -> Path:
        """The checked entry of the dataset, a `DatasetPlan`."""
        return self.plan / "dataset.json"

    def model_plan(self, model: str) -> Path:
        """Return where the checked recipe of a model lies, a `ModelPlan`."""
        return self.plan / "models" / f"{model}.json"

    @property
    def watched(self) -> Path:
        """`data/watched/<dataset>`: a link to the source, which DVC watches; kept in git."""
        return self.root / "data" / "watched" / self.dataset

    @property
    def raw(self) -> RawDataset:
        """`data/raw/<dataset>/`."""
        return RawDataset(self.root / "data" / "raw" / self.dataset)

    @property
    def accepted(self) -> Path:
        """The statistics of the accepted versions of the dataset; kept in git."""
        return self.root / "data" / "accepted" / f"{self.dataset}.json"

    @property
    def splits(self) -> Splits:
        """`data/processed/<dataset>/`."""
        return Splits(self.root / "data" / "processed" / self.dataset)

    @property
    def reports(self) -> Path:
        """`reports/<dataset>/`."""
        return self.root / "reports" / self.dataset

    @property
    def validation(self) -> Path:
        """The folder of the validation report, the manifest and the Data Docs."""
        return self.reports / "validation"

    @property
    def validation_report(self) -> ValidationReport:
        """What the checks found."""
        return ValidationReport.load(self.validation / "summary.json")

    @property
    def samples(self) -> Path:
        """The figure of sample images by class."""
        return self.reports / "samples.png"

    def trained(self, model: str) -> TrainedModel:
        """`models/<dataset>/<model>/`."""
        return TrainedModel(self.root / "models" / self.dataset / model)

    def evaluation(self, model: str) -> Evaluation:
        """`reports/<dataset>/evaluation/<model>/`."""
        return Evaluation(self.reports / "evaluation" / model)

    @property
    def registered_path(self) -> Path:
        """`reports/<dataset>/registered.json`."""
        return self.reports / "registered.json"

    @property
    def registered(self) -> ModelVersion:
        """The version that the last run registered."""
        return ModelVersion.load(self.registered_path)

    def remove_empty_folders(self) -> None:
        """Remove the folders that DVC makes for models and reports before a stage has run."""
        for top in (self.root / "models" / self.dataset, self.reports):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
