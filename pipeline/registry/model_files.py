"""The files of a version in the registry, fetched and loaded.

What is fetched is checked against what was registered; a model is loaded with the code that is
stored with it.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd

import pipeline
from pipeline.artifacts.files import sha256
from pipeline.artifacts.quiet import quiet_stderr
from pipeline.errors import ArtifactError, PipelineError
from pipeline.registry import version_images
from pipeline.registry.passport import FILE_NAME, Passport
from pipeline.registry.version_images import VersionImages
from pipeline.registry.versions import Registered
from pipeline.tracking.store import connect, reaching

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about type hints in its own code
    import mlflow.pyfunc

# Of answers for examples, which may be asked for on other hardware than the training had.
SMOKE_TOLERANCE = 0.01


def load(uri: str) -> Any:
    """Load a model as a caller would: a pyfunc with `predict`, and never a pickle.

    Versions of earlier releases predict with Keras, on the backend that `KERAS_BACKEND` names.

    Raises:
        TrackingError: it does not load.
        ArtifactError: it is not what was trained.
    """
    connect()
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    with reaching(f"load {uri}"), _code_of_the_model(), quiet_stderr():
        return mlflow.pyfunc.load_model(uri, suppress_warnings=True)


def examples_differ(uri: str, passport: Passport) -> float:
    """Return how far a model's answers for its examples are from those known, asked as callers do.

    Args:
        uri: the URI of a logged or registered model.
        passport: its passport.

    Raises:
        TrackingError: it does not load or does not answer.
    """
    served = load(uri)
    with reaching(f"ask {uri}"):
        answer = served.predict(pd.DataFrame({"image": [e.png for e in passport.examples]}))
    found = np.stack(answer["probabilities"].to_list())
    return float(np.abs(found - [e.probabilities for e in passport.examples]).max())


@contextmanager
def _code_of_the_model() -> Iterator[None]:
    """Let a model import the package that is stored with it, which may be of another release."""
    path, ours = list(sys.path), _take_out_our_modules()
    try:
        yield
    except Exception as error:
        # The error is raised by that package, whose classes are not ours.
        if any(kind.__name__ == PipelineError.__name__ for kind in type(error).__mro__):
            raise ArtifactError(str(error)) from error
        raise
    finally:
        _take_out_our_modules()
        sys.modules.update(ours)
        sys.path[:] = path


def _take_out_our_modules() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == pipeline.__name__]
    return {name: sys.modules.pop(name) for name in names}


def fetch(version: Registered) -> Path:
    """Return the folder of a version's files: the models, `run.json`, `passport.json`, ….

    Raises:
        ArtifactError: a model or the passport is not what was registered.
        TrackingError: a file is gone, or the store cannot be reached.
    """
    client = connect()
    with reaching(f"fetch {version.spec}"):
        uri = client.get_model_version_download_uri(version.name, str(version.version))
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/artifacts"))
    _check_bytes(version, "model_sha256", folder / "model.keras")
    _check_bytes(version, "portable_sha256", folder / "model.tflite")
    _check_bytes(version, "passport_sha256", folder / FILE_NAME)
    _check_bytes(version, "images_sha256", folder / version_images.FILE_NAME)
    if "passport_sha256" in version.tags:
        passport = Passport.load(folder / FILE_NAME)
        if passport.images_sha256 != version.tags.get("images_sha256", ""):
            raise ArtifactError(
                f"{version_images.FILE_NAME} of {version.spec} is not what its passport says: "
                f"sha256 {version.tags.get('images_sha256', 'none')}, in the passport "
                f"{passport.images_sha256}"
            )
        for name, expected in passport.files.items():
            _check_file(version, folder / name, expected)
    return folder


def read_passport(version: Registered) -> Passport:
    """Read what made a version, and nothing else of it.

    Raises:
        ArtifactError: it has no passport, or not the one it was registered with.
        TrackingError: the store cannot be reached.
    """
    if "passport_sha256" not in version.tags:
        raise ArtifactError(
            f"{version.spec} has no passport: it was not registered by `pipeline register`, or by "
            "a release that made none; train and register it again: dvc repro --force"
        )
    with TemporaryDirectory() as folder:
        file = _fetch_file(version, FILE_NAME, folder)
        _check_bytes(version, "passport_sha256", file)
        return Passport.load(file)


def read_images(version: Registered) -> VersionImages | None:
    """Read which images a version was trained on; None where it was registered without.

    Raises:
        ArtifactError: the file is not the one it was registered with.
        TrackingError: the store cannot be reached.
    """
    if "images_sha256" not in version.tags:
        return None
    with TemporaryDirectory() as folder:
        file = _fetch_file(version, version_images.FILE_NAME, folder)
        _check_bytes(version, "images_sha256", file)
        return VersionImages.load(file)


def _fetch_file(version: Registered, name: str, folder: str) -> Path:
    client = connect()
    with reaching(f"fetch {name} of {version.spec}"):
        uri = client.get_model_version_download_uri(version.name, str(version.version))
        return Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/{name}", dst_path=folder))


def _check_bytes(version: Registered, tag: str, file: Path) -> None:
    """Compare a file with the sha256 that its version was registered with."""
    expected = version.tags.get(tag)
    if expected is None and not file.exists():
        return  # the version was registered without it
    _check_file(version, file, expected)


def _check_file(version: Registered, file: Path, expected: str | None) -> None:
    found = sha256(file) if file.exists() else "none: the file is gone"
    if found != expected:
        raise ArtifactError(
            f"{file.name} of {version.spec} is not what was registered: sha256 {found}, "
            f"registered: {expected}; roll back, or register the model again"
        )
