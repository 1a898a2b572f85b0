"""A model is logged in MLflow in the form in which it is served."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema

import pipeline
from pipeline.artifacts.models import TrainedModel
from pipeline.registry.passport import Passport
from pipeline.tracking.describe import serving_requirements
from pipeline.tracking.store import connect, reaching

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about type hints in its own code
    import mlflow.pyfunc

SERVED_MODEL = Path(__file__).with_name("served_model.py")
# Any: base64 text of an image file, or nested lists or an array of pixels.
INPUTS = Schema([ColSpec(AnyType(), "image")])
OUTPUTS = (
    ColSpec(DataType.long, "label"),
    ColSpec(DataType.string, "class_name"),
    ColSpec(Array(DataType.double), "probabilities"),
)
# Of a version with a guarantee.
WITH_GUARANTEE = (
    ColSpec(Array(DataType.string), "nearest"),
    ColSpec(DataType.string, "reason"),
)


def log_model(
    trained: TrainedModel,
    run_id: str,
    passport: Path,
    images: Path,
    example: str,
    further: Sequence[Path] = (),
) -> str:
    """Store the model in the form in which it is served, on the run that trained it.

    Args:
        trained: the model.
        run_id: the id of its run in this store.
        passport: the file of its passport, which is stored with the model.
        images: the file that says which images it was trained on; likewise.
        example: base64 of an image file, shown to callers.
        further: files that this version has and others do not.

    Returns:
        The model's URI, which `load` takes.
    """
    client = connect()
    more = WITH_GUARANTEE if Passport.load(passport).guarantee else ()
    with reaching("store the model"):
        # Not through an active run, which would reopen the run and change when it ended.
        experiment_id = client.get_run(run_id).info.experiment_id
        mlflow.set_experiment(experiment_id=experiment_id)
        _delete_orphans(client, experiment_id, trained.run.dataset, run_id)
        info = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(SERVED_MODEL),
            artifacts={
                "model": str(trained.model),
                "run": str(trained.path / "run.json"),
                "portable": str(trained.litert),
                "portable_record": str(trained.litert_record),
                "passport": str(passport),
                "images": str(images),
                **{file.stem: str(file) for file in further},
            },
            code_paths=[str(Path(pipeline.__file__).parent)],
            signature=ModelSignature(inputs=INPUTS, outputs=Schema([*OUTPUTS, *more])),
            input_example=pd.DataFrame({"image": [example]}),
            # Given, as MLflow would load the model to find them.
            pip_requirements=serving_requirements(),
        )
    return str(info.model_uri)


def _delete_orphans(client: MlflowClient, experiment_id: str, name: str, run_id: str) -> None:
    """Delete logged models that a killed registration has never registered."""
    used = {v.model_id for v in client.search_model_versions(f"name = '{name}'")}
    query = f"source_run_id = '{run_id}'"
    for model in client.search_logged_models([experiment_id], query):
        if model.model_id not in used:
            client.delete_logged_model(model.model_id)
