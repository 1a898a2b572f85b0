"""What is written to a run before its training begins."""

from typing import Any

from pipeline.artifacts.datasets import Splits
from pipeline.tracking.describe import LIBRARIES
from pipeline.tracking.provenance import Provenance
from pipeline.tracking.run import Run, flat


def describe(
    run: Run, splits: Splits, data_md5: str, dataset: str, model: str, provenance: Provenance
) -> None:
    """Write down the recipe, the data, the code, the libraries and the hardware of a training.

    Raises:
        TrackingError: the store cannot be reached.
    """
    recipe = provenance.recipe.model_dump(mode="json", exclude_none=True)
    if isinstance(weights := recipe.get("class_weights"), dict):
        recipe["class_weights"] = _one_line(weights)  # the name of a class may be no key of MLflow
    layers = {f"{number:02}": layer for number, layer in enumerate(recipe.pop("layers"), start=1)}
    run.log_params({**recipe, "layers": {key: _one_line(row) for key, row in layers.items()}})
    run.log_params({"deterministic": provenance.deterministic})
    run.log_dataset(splits, data_md5)
    code, environment = provenance.code, provenance.environment
    run.log_tags(
        {
            "dataset": dataset,
            "model": model,
            "data_md5": data_md5,
            "raw_md5": splits.info.raw_md5,
            "device": provenance.device,
            **{f"git_{key}": getattr(code, key) for key in ("commit", "branch", "dirty")},
            **provenance.flow_run,
            "python": environment.python,
            "platform": environment.platform,
            **environment.hardware,
            **flat({"version": {name: environment.packages.get(name) for name in LIBRARIES}}),
        }
    )


def _one_line(row: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in row.items())
