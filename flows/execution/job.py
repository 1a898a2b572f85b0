"""One run of the stages: which ones, which are finished, and what they made."""

from flows.execution.checkout import Checkout
from flows.execution.stages import Stages
from flows.pages.rows import ModelRow
from pipeline.artifacts.models import ModelVersion, RunInfo
from pipeline.artifacts.project import MODEL_STAGES, STAGES, Until
from pipeline.params.params import Params
from pipeline.workspace import Workspace


def steps(models: tuple[str, ...], until: Until) -> list[str]:
    """Return the stages in order, as `dvc repro` names them.

    Args:
        models: to train.
        until: the last stage.
    """
    names: list[str] = []
    for stage in STAGES[: STAGES.index(until) + 1]:
        names += [f"{stage}@{model}" for model in models] if stage in MODEL_STAGES else [stage]
    return names


class Job:
    """One run: its files, parameters, DVC process and finished stages.

    Attributes:
        finished: the finished steps; True where DVC ran the step, False where it had the result.
    """

    def __init__(self, checkout: Checkout, params: Params, stages: Stages) -> None:
        self.checkout, self.params, self.stages = checkout, params, stages
        self.workspace = Workspace(params.dataset, checkout.root)
        self.finished: dict[str, bool] = {}

    def trained(self) -> list[RunInfo]:
        """Return the MLflow runs of the models so far, in the order of params.yaml."""
        return [
            self.workspace.trained(model).run
            for model in self.params.models
            if f"train@{model}" in self.finished
        ]

    def row(self, run: RunInfo) -> ModelRow:
        """Return what models are compared by."""
        evaluated = f"evaluate@{run.model}" in self.finished
        metrics = self.workspace.evaluation(run.model).metrics if evaluated else {}
        return ModelRow(
            dataset=run.dataset,
            model=run.model,
            seed=run.seed,
            run_id=run.run_id,
            val_accuracy=run.val_accuracy,
            accuracy=metrics.get("accuracy"),
            accuracy_low=metrics.get("accuracy_low"),
            accuracy_high=metrics.get("accuracy_high"),
            epochs=run.epochs,
            training_seconds=run.training_seconds,
            cached=not self.finished[f"train@{run.model}"],
            device=run.device,
        )

    def version(self) -> ModelVersion | None:
        """Return the registered version, if there is one yet."""
        return self.workspace.registered if "register" in self.finished else None
