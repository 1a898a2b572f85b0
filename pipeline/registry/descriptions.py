"""What MLflow shows of a version: its description, and its evaluation on the run."""

import shutil
from pathlib import Path

import mlflow

from pipeline.registry.versions import Registered
from pipeline.tracking.store import connect, reaching

# MLflow takes no longer description.
LONGEST = 5000


def describe(version: Registered, text: str) -> None:
    """Set the description of a version, Markdown of at most `LONGEST` characters.

    Raises:
        TrackingError: the store cannot be reached, or has no such version.
    """
    client = connect()
    with reaching(f"describe {version.spec}"):
        client.update_model_version(version.name, str(version.version), text)


def fetch_evaluation(version: Registered, folder: Path) -> Path | None:
    """Download the evaluation of a version from the run that made it; None where it has none.

    Args:
        version: whose evaluation.
        folder: where it is downloaded to.

    Returns:
        A folder with `plots/` and `predictions/`, as `evaluate` wrote it; a version with a
        guarantee has its figure among the plots.

    Raises:
        TrackingError: the store cannot be reached.
    """
    client = connect()
    with reaching(f"fetch the evaluation of {version.spec}"):
        if not client.list_artifacts(version.run_id, "evaluation"):
            return None
        found = Path(
            mlflow.artifacts.download_artifacts(
                run_id=version.run_id, artifact_path="evaluation", dst_path=str(folder)
            )
        )
        promised = of_guarantee(version)
        for figure in client.list_artifacts(version.run_id, promised):
            if figure.path.endswith(".png"):
                made = mlflow.artifacts.download_artifacts(
                    run_id=version.run_id, artifact_path=figure.path, dst_path=str(folder)
                )
                shutil.move(made, found / "plots")
        return found


def of_guarantee(version: Registered) -> str:
    """Return the folder on a run that has what is said of a version's guarantee."""
    return f"guarantee/{version.version}"
